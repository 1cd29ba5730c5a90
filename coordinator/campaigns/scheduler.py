"""Where the next round pays most: gradient scheduling over the tasks of one group.

As in the task scheduler of Ansor (Zheng et al., OSDI 2020, section 6), the next round goes to the
task with the largest expected gain for the network; what is expected is :mod:`.gains`' affair.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from coordinator.campaigns.gains import Outlook
from coordinator.campaigns.round_size import (
    ROUND_TRIALS,
    SMALL_ROUND_TRIALS,
    SMALL_SHARE,
    first_round_trials,
    later_round_trials,
)
from coordinator.state.records import TaskKey, TaskProgress
from coordinator.state.trial_records import LatencyPoint

TRIALS_PER_TASK = 48
"""Default budget for each task that counts."""

Predictions = Callable[[TaskKey], Sequence[LatencyPoint]]
"""Gives the last trials of a task that the cost model scored."""


@dataclass(frozen=True)
class Choice:
    """The next round."""

    progress: TaskProgress
    trials: int


def choose_round(
    outlook: Outlook,
    trials_left: int,
    busy: Collection[TaskKey],
    *,
    min_gain: float = 0.0,
    predictions: Predictions | None = None,
) -> Choice | None:
    """Choose the task whose next round promises most for the network, for the time it takes.

    Args:
        outlook: all tasks of one group.
        trials_left: trials that the group may still make.
        busy: tasks that another device is at work on; two rounds of one task at a time could
            measure the same candidate twice.
        min_gain: share of the network's latency that a round must be expected to gain.
        predictions: of the cost model; ``None`` where there is none.

    Returns:
        The task and the size of its round, or ``None`` where there is nothing to do now.
    """
    tasks = outlook.tasks
    open_tasks = [t for t in tasks if not t.task.exhausted and t.task.key not in busy]
    # Also of tasks whose few schedules were all measured.
    due = [t for t in tasks if lacks_baseline(t) and t.task.key not in busy]
    if trials_left <= 0 or not (open_tasks or due):
        return None
    fresh = [t for t in open_tasks if t.rounds == 0]
    if fresh:
        chosen = max(fresh, key=lambda t: t.task.flops * t.task.weight)
        guided = predictions is not None
        size = first_round_trials(_share(chosen, tasks), model_known=guided)
        # A small budget is shared out, so that no task is left without a single trial, nor, where
        # baselines come later, without one for that.
        spare = trials_left - (len(due) + len(fresh) if guided else 0)
        return Choice(chosen, min(size, max(1, spare // len(fresh))))
    worthy = [t for t in open_tasks if outlook.is_worth_a_round(t, min_gain)]
    if due and (not worthy or trials_left <= len(due)):
        return Choice(due[0], 1)
    if not worthy:
        return None
    chosen = max(worthy, key=outlook.gain_per_cost)
    size = ROUND_TRIALS if predictions is None else later_round_trials(predictions(chosen.task.key))
    # One trial is kept for each program that would else never be measured without a schedule.
    return Choice(chosen, max(1, min(size, trials_left - len([t for t in due if t is not chosen]))))


def lacks_baseline(progress: TaskProgress) -> bool:
    """Whether a task has schedules, but its program was never measured without one.

    A first round that a cost model guides has better to do: it comes with the task's second round,
    or at the end of the campaign in one of its own.
    """
    return progress.baseline_s is None and progress.best_s is not None and progress.rounds == 1


def default_trials(tasks: Sequence[TaskProgress]) -> int:
    """Return a group's budget where the user names none."""
    return sum(
        SMALL_ROUND_TRIALS if _share(t, tasks) < SMALL_SHARE else TRIALS_PER_TASK for t in tasks
    )


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


def _share(progress: TaskProgress, tasks: Sequence[TaskProgress]) -> float:
    """Return a task's share of the network's operations; all of them where there are none."""
    total = sum(t.task.flops * t.task.weight for t in tasks)
    return progress.task.flops * progress.task.weight / total if total > 0 else 1.0
