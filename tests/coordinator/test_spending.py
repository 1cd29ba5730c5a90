"""Whole campaigns of made-up tasks: where their trials go, when they end, what they reach.

Each task's best latency falls towards a floor as its trials grow, quickly or slowly, smoothly or by
chance; nothing here computes or is random beyond its seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from task_samples import progress

from coordinator.campaigns.ending import why_group_rests
from coordinator.campaigns.gains import Outlook
from coordinator.campaigns.round_size import ROUND_TRIALS
from coordinator.campaigns.scheduler import choose_round
from coordinator.state.records import TaskProgress

MIN_GAIN = 0.001
FAR = 100_000
"""Trials that no campaign here comes near."""


@dataclass
class Task:
    """A task whose best latency after ``n`` trials is some ``floor_s * (1 + above / n**slope)``."""

    name: str
    floor_s: float
    above: float
    slope: float
    weight: int = 1
    luck: random.Random | None = None
    """Draws every trial; without it, the best falls smoothly."""
    ends: list[tuple[int, float]] = field(default_factory=list)

    @property
    def trials(self) -> int:
        return self.ends[-1][0] if self.ends else 0

    def measure(self, trials: int) -> None:
        made = self.trials + trials
        if self.luck is None:
            self.ends.append((made, self.floor_s * (1 + self.above / made**self.slope)))
            return
        # The least of n such draws is about 1 / n ** slope.
        drawn = min(self.luck.random() ** self.slope for _ in range(trials))
        found = self.floor_s * (1 + self.above * drawn)
        self.ends.append((made, min(found, self.ends[-1][1] if self.ends else found)))

    def known(self) -> TaskProgress:
        history = [best for _, best in self.ends]
        made = progress(self.name, *history, flops=self.floor_s * 1e9, weight=self.weight)
        fields = {"trials": self.trials, "trials_by_round": tuple(n for n, _ in self.ends)}
        return TaskProgress(**{**vars(made), **fields})


def network(seed: int, *, lucky: bool) -> list[Task]:
    """Make 24 tasks as different as those of a network: a few weigh most."""
    rng = random.Random(seed)
    return [
        Task(
            name=f"task-{n}",
            floor_s=10 ** rng.uniform(-5, -3),
            above=rng.uniform(0.2, 6.0),
            slope=rng.uniform(0.5, 1.2),
            weight=rng.choice((1, 1, 1, 2, 4)),
            luck=random.Random(rng.random()) if lucky else None,
        )
        for n in range(24)
    ]


def latency_s(tasks: list[Task]) -> float:
    return sum(t.weight * t.ends[-1][1] for t in tasks)


def floor_s(tasks: list[Task]) -> float:
    return sum(t.weight * t.floor_s for t in tasks)


def tune(tasks: list[Task], *, min_gain: float, trials: int = FAR) -> str:
    """Let the scheduler spend up to so many trials; returns why it ended."""
    by_name = {t.name: t for t in tasks}
    while True:
        outlook = Outlook([t.known() for t in tasks])
        left = trials - sum(t.trials for t in tasks)
        choice = choose_round(outlook, left, (), min_gain=min_gain)
        why = why_group_rests(outlook, trials, min_gain)
        assert bool(why) == (choice is None), "planner and runner disagree"
        if choice is None:
            return why
        by_name[choice.progress.task.name].measure(choice.trials)


def take_turns(tasks: list[Task], trials: int) -> None:
    """Spend so many trials evenly."""
    while sum(t.trials for t in tasks) < trials:
        min(tasks, key=lambda t: t.trials).measure(16)


every_network = pytest.mark.parametrize("lucky", [False, True], ids=["smooth", "by chance"])
every_seed = pytest.mark.parametrize("seed", range(3))


@every_network
@every_seed
def test_a_campaign_ends_by_itself_where_more_would_hardly_pay(seed: int, lucky: bool) -> None:
    tasks = network(seed, lucky=lucky)
    assert tune(tasks, min_gain=MIN_GAIN) == ("the next round was expected to gain less than 0.1 %")
    reached, used = latency_s(tasks), sum(t.trials for t in tasks)

    longer = network(seed, lucky=lucky)
    tune(longer, min_gain=0, trials=2 * used)
    gained = 1 - latency_s(longer) / reached
    assert gained / (used / ROUND_TRIALS) < MIN_GAIN, "as many again would have paid"
    first = sum(t.weight * t.ends[0][1] for t in longer)
    assert first - reached > 0.6 * (first - latency_s(longer))


@every_network
@every_seed
def test_trials_are_better_spent_than_in_turns(seed: int, lucky: bool) -> None:
    spent, even = network(seed, lucky=lucky), network(seed, lucky=lucky)
    tune(spent, min_gain=0, trials=800)
    take_turns(even, 800)
    over = {name: latency_s(t) - floor_s(t) for name, t in (("ours", spent), ("even", even))}
    assert over["ours"] < over["even"]


def ended_after(min_gain: float, make: Callable[[], list[Task]]) -> int:
    tasks = make()
    tune(tasks, min_gain=min_gain)
    return sum(t.trials for t in tasks)


def test_the_more_is_asked_of_a_round_the_earlier_it_ends() -> None:
    ends = [ended_after(gain, lambda: network(0, lucky=False)) for gain in (0.03, 0.003, 0.0003)]
    assert ends[0] < 0.7 * ends[1] < 0.5 * ends[2]


def test_a_network_that_cannot_be_improved_is_let_go_soon() -> None:
    def at_its_floor() -> list[Task]:
        return [Task(f"task-{n}", 1e-3, above=0.0, slope=1.0) for n in range(10)]

    assert ended_after(MIN_GAIN, at_its_floor) <= 10 * 3 * 16


def test_a_budget_ends_it_before() -> None:
    assert tune(network(0, lucky=False), min_gain=MIN_GAIN, trials=200) == "all trials were made"
