"""Where the next round goes."""

from __future__ import annotations

import pytest
from store_samples import KEY
from task_samples import progress

from coordinator.campaigns.gains import Outlook
from coordinator.campaigns.round_size import GUIDED_ROUND_TRIALS, ROUND_TRIALS, SMALL_ROUND_TRIALS
from coordinator.campaigns.scheduler import (
    Choice,
    choose_round,
    default_trials,
    estimated_latency_s,
    lacks_baseline,
)
from coordinator.state.records import TaskKey, TaskProgress
from coordinator.state.trial_records import LatencyPoint


def choice(
    *tasks: TaskProgress,
    trials_left: int = 100,
    busy: set[TaskKey] | None = None,
    min_gain: float = 0.0,
) -> Choice | None:
    return choose_round(Outlook(tasks), trials_left, busy or set(), min_gain=min_gain)


def chosen(*tasks: TaskProgress, min_gain: float = 0.0) -> str | None:
    made = choice(*tasks, min_gain=min_gain)
    return made.progress.task.name if made else None


def size(*tasks: TaskProgress, trials_left: int = 100, min_gain: float = 0.0) -> int:
    made = choice(*tasks, trials_left=trials_left, min_gain=min_gain)
    assert made is not None
    return made.trials


def points(*pairs: tuple[float, float]) -> list[LatencyPoint]:
    """Make scored trials of one task from scores and latencies in seconds."""
    return [LatencyPoint(KEY, 0.0, "", latency, "ok", score, "v1") for score, latency in pairs]


def test_fresh_tasks_come_first_and_the_largest_of_them() -> None:
    tuned, small = progress("tuned", 1.0), progress("small", flops=1e6)
    assert chosen(tuned, small, progress("large", flops=1e8, weight=3)) == "large"


def test_an_equal_task_called_more_often_is_preferred() -> None:
    assert chosen(progress("once", 2.0, 1.0), progress("often", 2.0, 1.0, weight=4)) == "often"


def test_a_task_that_still_improves_is_preferred_to_one_that_stalls() -> None:
    assert chosen(progress("stalls", 1.0, 1.0, 1.0), progress("improves", 3.0, 2.0, 1.0)) == (
        "improves"
    )


def test_of_equal_promises_the_cheaper_one_is_kept() -> None:
    dear = progress("dear", 2.0, 1.0, trial_s=2.0)
    assert chosen(dear, progress("cheap", 2.0, 1.0, trial_s=1.0)) == "cheap"


def test_busy_and_exhausted_tasks_are_left_alone() -> None:
    busy, done = progress("busy"), progress("done", exhausted=True)
    assert choice(busy, done, busy={busy.task.key}) is None


def test_a_task_that_promises_too_little_is_left_alone() -> None:
    stalled = progress("stalled", *[1.0] * 9)
    assert chosen(stalled, min_gain=0.1) is None
    assert chosen(stalled, min_gain=0.0) == "stalled"


def test_what_was_never_tried_is_tried_whatever_gain_is_asked_for() -> None:
    assert chosen(progress("stalled", *[1.0] * 9), progress("fresh"), min_gain=0.5) == "fresh"


def test_a_round_never_exceeds_the_budget() -> None:
    assert size(progress("a"), trials_left=3) == 3
    assert size(progress("a", 2.0, 1.0), trials_left=3) == 3


def test_a_small_budget_is_shared_out_among_fresh_tasks() -> None:
    assert size(progress("a"), progress("b"), progress("c"), trials_left=12) == 4


def test_a_small_guided_budget_has_a_trial_for_each_baseline() -> None:
    tasks = [progress("a"), progress("b"), progress("c", 1.0, has_baseline=False)]
    made = choose_round(Outlook(tasks), 9, (), predictions=lambda _: [])
    assert made is not None
    assert made.trials == 3


def test_a_task_that_hardly_counts_gets_a_small_first_round() -> None:
    assert size(progress("reshape", flops=0.0), progress("conv", 1.0)) == SMALL_ROUND_TRIALS


@pytest.mark.parametrize(
    ("scored", "expected"),
    [
        (points(*[(-n, 1e-3 * n) for n in range(1, 11)]), GUIDED_ROUND_TRIALS),
        (points(*[(n, 1e-3 * n) for n in range(1, 11)]), ROUND_TRIALS),
    ],
    ids=["a model that ranks well", "a model that ranks badly"],
)
def test_later_rounds_follow_what_the_model_made_of_the_task(
    scored: list[LatencyPoint], expected: int
) -> None:
    asked: list[TaskKey] = []

    def predictions(key: TaskKey) -> list[LatencyPoint]:
        asked.append(key)
        return scored

    tasks = [progress("a", 2.0, 1.0), progress("b", 1.0, 1.0)]
    made = choose_round(Outlook(tasks), 100, (), predictions=predictions)
    assert made is not None
    assert made.trials == expected
    assert asked == [tasks[0].task.key], "only the chosen task needs looking up"


def test_first_rounds_are_shorter_where_a_model_guides_them() -> None:
    tasks = [progress("a")]
    guided = choose_round(Outlook(tasks), 100, (), predictions=lambda _: [])
    assert guided is not None
    assert guided.trials == SMALL_ROUND_TRIALS
    assert size(*tasks) == ROUND_TRIALS


def test_a_baseline_is_measured_once_no_round_is_worth_more() -> None:
    stalled = progress("stalled", *[1.0] * 9)
    small = progress("small", 1e-9, has_baseline=False)
    assert lacks_baseline(small)
    assert chosen(stalled, small, min_gain=0.1) == "small"
    assert size(stalled, small, min_gain=0.1) == 1
    assert chosen(progress("improves", 2.0, 1.0), small, min_gain=0.01) == "improves"


def test_the_last_trials_are_kept_for_baselines() -> None:
    improves = progress("improves", 2.0, 1.0)
    one, other = (
        progress("one", 1e-9, has_baseline=False),
        progress("other", 1e-9, has_baseline=False),
    )
    assert size(improves, one, other, trials_left=10) == 8
    made = choice(improves, one, other, trials_left=2)
    assert made is not None
    assert (made.progress, made.trials) == (one, 1)


def test_a_task_whose_schedules_were_all_measured_gets_its_baseline_too() -> None:
    done = progress("done", 1e-9, exhausted=True, has_baseline=False)
    assert chosen(done) == "done"
    assert size(done) == 1
    assert choice(done, busy={done.task.key}) is None


def test_a_baseline_that_could_not_be_measured_is_let_go() -> None:
    assert not lacks_baseline(progress("twice", 1.0, 1.0, has_baseline=False))
    assert not lacks_baseline(progress("fresh"))


def test_a_task_with_failures_only_is_given_up_after_some_rounds() -> None:
    assert chosen(progress("broken", rounds=3), progress("works", 1.0, 1.0)) == "works"
    assert chosen(progress("broken", rounds=2), progress("works", 1.0, 1.0)) == "broken"


def test_the_default_budget_grows_with_the_tasks_that_count() -> None:
    one = default_trials([progress("a")])
    two = default_trials([progress("a"), progress("b")])
    assert two == 2 * one
    assert one > ROUND_TRIALS


def test_the_networks_latency_is_unknown_until_each_task_has_one() -> None:
    known = progress("known", 0.5, weight=2)
    assert estimated_latency_s([known]) == 1.0
    assert estimated_latency_s([known, progress("unknown")]) is None
