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

_DEVICES_OF_SHORT_ROUNDS = 250
"""Of more devices, each is given more at a time: asking for work and ending it are to stay a small
part of what a coordinator does."""

_LONGEST_ROUND_TRIALS = 64
"""As many as MetaSchedule and Ansor measure in a round."""

COLLECTION_PARENTS = 4
"""Fastest candidates that later rounds also draw mutants of, so that good ones are seen too."""

COLLECTION_MEASURE = MeasurePolicy(
    budget_ms=100, precision=0.02, build_timeout_s=6.0, run_timeout_s=4.0
)
"""Less than tuning spends on each: no race is decided here, but another candidate teaches more."""

_POPULATION_A_TRIAL = 3
"""Enough to choose different ones from."""

_HOPELESS_ROUNDS = 3
"""Rounds that brought no trial at all after which a task is left alone."""


def collecting_round_trials(devices: int) -> int:
    """Size the rounds of collections by how many devices there are."""
    wished = COLLECTION_ROUND_TRIALS * devices // _DEVICES_OF_SHORT_ROUNDS
    return min(max(COLLECTION_ROUND_TRIALS, wished), _LONGEST_ROUND_TRIALS)


def collecting_search(trials: int) -> SearchPolicy:
    """Size the search for a round by the trials that it is for."""
    population = _POPULATION_A_TRIAL * max(trials, COLLECTION_ROUND_TRIALS)
    return SearchPolicy(population=population, generations=1)


def choose_collecting_round(
    tasks: Sequence[TaskProgress],
    trials_per_task: int,
    busy: Collection[TaskKey],
    round_trials: int = COLLECTION_ROUND_TRIALS,
) -> Choice | None:
    """Choose the task with the fewest trials, among equals the workload that was added first.

    So a workload is measured for all targets in turn before the next one comes.

    Args:
        tasks: all tasks that the device may work on.
        trials_per_task: trials wanted of each.
        busy: tasks that another device is at work on.
        round_trials: trials of a round at the most.

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
    return Choice(chosen, min(round_trials, trials_per_task - chosen.trials))


def collected(progress: TaskProgress, trials_per_task: int) -> bool:
    """Whether nothing more is to be measured of a task."""
    hopeless = progress.trials == 0 and progress.rounds >= _HOPELESS_ROUNDS
    return progress.trials >= trials_per_task or progress.task.exhausted or hopeless
