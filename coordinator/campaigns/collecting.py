"""What a collection measures: a few different candidates of many tasks, none left behind.

A cost model gains more from another workload than from more records of a known one (TenSet's 600
workloads with 200 records each taught more than 200 with 600).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coordinator.campaigns.scheduler import Choice
from coordinator.state.records import TaskKey, TaskProgress
from tunefleet.leases import MeasurePolicy, SearchPolicy

COLLECTION_ROUND_TRIALS = 16
"""Trials of one round; a collection that is ended early has about as many of each task."""

COLLECTION_PARENTS = 4
"""Fastest candidates that later rounds also draw mutants of, so that good ones are seen too."""

COLLECTION_MEASURE = MeasurePolicy(
    budget_ms=100, precision=0.02, build_timeout_s=6.0, run_timeout_s=4.0
)
"""Less than tuning spends on each: no race is decided here, but another candidate teaches more."""

COLLECTION_SEARCH = SearchPolicy(population=48, generations=1)
"""Enough to choose different ones from."""

_HOPELESS_ROUNDS = 3
"""Rounds that brought no trial at all after which a task is left alone."""


def choose_collecting_round(
    tasks: Sequence[TaskProgress], trials_per_task: int, busy: Collection[TaskKey]
) -> Choice | None:
    """Choose the task with the fewest trials, among equals the workload that was added first.

    So a workload is measured for all targets in turn before the next one comes.

    Args:
        tasks: all tasks that the device may work on.
        trials_per_task: trials wanted of each.
        busy: tasks that another device is at work on.

    Returns:
        The task and the size of its round, or ``None`` where there is nothing to do now.
    """
    open_tasks = [t for t in tasks if not collected(t, trials_per_task) and t.task.key not in busy]
    if not open_tasks:
        return None
    # By rounds as well: a task whose rounds fail must not be tried for ever before all others.
    place: dict[str, int] = {}
    for task in tasks:
        place.setdefault(task.task.key.workload, len(place))
    chosen = min(open_tasks, key=lambda t: (t.rounds, t.trials, place[t.task.key.workload]))
    return Choice(chosen, min(COLLECTION_ROUND_TRIALS, trials_per_task - chosen.trials))


def collected(progress: TaskProgress, trials_per_task: int) -> bool:
    """Whether nothing more is to be measured of a task."""
    hopeless = progress.trials == 0 and progress.rounds >= _HOPELESS_ROUNDS
    return progress.trials >= trials_per_task or progress.task.exhausted or hopeless
