"""Where the next round pays most: gradient scheduling over the tasks of one group.

The objective is the network's latency, the sum over tasks of weight times best latency. A task's
expected gain blends what its last rounds brought with what it may still hold, after the task
scheduler of Ansor (Zheng et al., OSDI 2020, section 6).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from coordinator.state.records import TaskKey, TaskProgress

ROUND_TRIALS = 16
"""Trials of a round: enough to keep a search's cost small beside that of measuring, few enough
that a new model reaches the device soon."""

SMALL_ROUND_TRIALS = 4
"""Trials of a first round of a task that hardly counts in the whole."""

TRIALS_PER_TASK = 48
"""Default budget for each task that counts."""

_SMALL_SHARE = 0.005
"""A task below this share of the network's operations gets a small first round."""

_RECENT_WEIGHT = 0.5
"""Share of the expected gain that comes from what recent rounds brought."""

_REACHABLE_SHARE = 0.7
"""A task is believed to reach at most this share of the best rate any task of its group reached."""


@dataclass(frozen=True)
class Choice:
    """The next round."""

    progress: TaskProgress
    trials: int


def choose_round(
    tasks: Sequence[TaskProgress], trials_left: int, busy: Collection[TaskKey]
) -> Choice | None:
    """Choose the task whose next round promises most for the network.

    Args:
        tasks: all tasks of one group.
        trials_left: trials that the group may still make.
        busy: tasks that another device is at work on; two rounds of one task at a time could
            measure the same candidate twice.

    Returns:
        The task and the size of its round, or ``None`` where there is nothing to do now.
    """
    open_tasks = [t for t in tasks if not t.task.exhausted and t.task.key not in busy]
    if trials_left <= 0 or not open_tasks:
        return None
    fresh = [t for t in open_tasks if t.rounds == 0]
    if fresh:
        chosen = max(fresh, key=lambda t: t.task.flops * t.task.weight)
        # A small budget is shared out, so that no task is left without a single trial.
        size = min(first_round_trials(chosen, tasks), max(1, trials_left // len(fresh)))
    else:
        best_rate = max((_rate(t) for t in tasks), default=0.0)
        chosen = max(open_tasks, key=lambda t: expected_gain_s(t, best_rate))
        size = ROUND_TRIALS
    return Choice(chosen, min(size, trials_left))


def first_round_trials(progress: TaskProgress, tasks: Sequence[TaskProgress]) -> int:
    """Size a task's first round by its share of the network's operations."""
    return SMALL_ROUND_TRIALS if _is_small(progress, tasks) else ROUND_TRIALS


def default_trials(tasks: Sequence[TaskProgress]) -> int:
    """Return a group's budget where the user names none."""
    return sum(SMALL_ROUND_TRIALS if _is_small(t, tasks) else TRIALS_PER_TASK for t in tasks)


def expected_gain_s(progress: TaskProgress, best_rate: float) -> float:
    """Estimate by how much one more round of a task lowers the network's latency.

    Args:
        progress: the task.
        best_rate: operations per second of the fastest task of the group; 0 if unknown.

    Returns:
        Seconds per run of the network; infinite where the task has no latency yet.
    """
    best = progress.best_s
    if best is None:
        # Only failures so far: try again, but ever less eagerly than a fresh task.
        return float("inf") if progress.rounds < _HOPELESS_ROUNDS else 0.0
    history = progress.best_by_round_s
    recent = (history[-2] - history[-1]) if len(history) > 1 else best
    floor = progress.task.flops / (best_rate * _REACHABLE_SHARE) if best_rate > 0 else 0.0
    reachable = min(best / max(progress.rounds, 1), max(best - floor, 0.05 * best))
    return progress.task.weight * (_RECENT_WEIGHT * recent + (1 - _RECENT_WEIGHT) * reachable)


_HOPELESS_ROUNDS = 3
"""Rounds without a single latency after which a task is left alone."""


def estimated_latency_s(tasks: Sequence[TaskProgress]) -> float | None:
    """Sum weight times best latency; ``None`` until every task has one."""
    return _weighted_sum([(t.task.weight, t.best_s) for t in tasks])


def estimated_baseline_s(tasks: Sequence[TaskProgress]) -> float | None:
    """Sum weight times the unscheduled program's latency; ``None`` until every task has one."""
    return _weighted_sum([(t.task.weight, t.baseline_s) for t in tasks])


def _weighted_sum(terms: Sequence[tuple[int, float | None]]) -> float | None:
    total = 0.0
    for weight, latency in terms:
        if latency is None:
            return None
        total += weight * latency
    return total if terms else None


def _rate(progress: TaskProgress) -> float:
    return progress.task.flops / progress.best_s if progress.best_s else 0.0


def _is_small(progress: TaskProgress, tasks: Sequence[TaskProgress]) -> bool:
    total = sum(t.task.flops * t.task.weight for t in tasks)
    return progress.task.flops * progress.task.weight < _SMALL_SHARE * total
