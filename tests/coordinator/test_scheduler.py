"""Where the next round goes."""

from __future__ import annotations

from coordinator.campaigns.scheduler import (
    ROUND_TRIALS,
    SMALL_ROUND_TRIALS,
    choose_round,
    default_trials,
    estimated_latency_s,
    expected_gain_s,
)
from coordinator.state.records import TaskKey, TaskProgress, TaskRecord


def progress(
    name: str,
    *,
    flops: float = 1e9,
    weight: int = 1,
    best_s: float | None = None,
    history: tuple[float, ...] = (),
    exhausted: bool = False,
) -> TaskProgress:
    key = TaskKey(workload=name, target="{}", fingerprint="f")
    task = TaskRecord(key, name, weight, flops, workload_digest="", exhausted=exhausted)
    return TaskProgress(
        task, best_s=best_s, rounds=len(history), best_by_round_s=history, baseline_s=best_s
    )


def chosen(tasks: list[TaskProgress], busy: set[TaskKey] | None = None) -> str | None:
    choice = choose_round(tasks, trials_left=100, busy=busy or set())
    return choice.progress.task.name if choice else None


def test_fresh_tasks_come_first_and_the_largest_of_them() -> None:
    tasks = [
        progress("tuned", best_s=1.0, history=(1.0,)),
        progress("small", flops=1e6),
        progress("large", flops=1e8, weight=3),
    ]
    assert chosen(tasks) == "large"


def test_an_equal_task_called_more_often_is_preferred() -> None:
    tasks = [
        progress("once", best_s=1.0, history=(2.0, 1.0)),
        progress("often", weight=4, best_s=1.0, history=(2.0, 1.0)),
    ]
    assert chosen(tasks) == "often"


def test_a_task_that_still_improves_is_preferred_to_one_that_stalls() -> None:
    tasks = [
        progress("stalls", best_s=1.0, history=(1.0, 1.0, 1.0)),
        progress("improves", best_s=1.0, history=(3.0, 2.0, 1.0)),
    ]
    assert chosen(tasks) == "improves"


def test_a_task_far_below_the_rate_of_others_is_preferred() -> None:
    fast = progress("fast", flops=1e9, best_s=0.01, history=(0.01, 0.01))
    slow = progress("slow", flops=1e9, best_s=0.02, history=(0.02, 0.02))
    assert expected_gain_s(slow, best_rate=1e11) > expected_gain_s(fast, best_rate=1e11)


def test_busy_and_exhausted_tasks_are_left_alone() -> None:
    busy, done = progress("busy"), progress("done", exhausted=True)
    assert chosen([busy, done], busy={busy.task.key}) is None


def test_a_round_never_exceeds_the_budget() -> None:
    choice = choose_round([progress("a")], trials_left=3, busy=())
    assert choice is not None
    assert choice.trials == 3


def test_a_small_budget_is_shared_out_among_fresh_tasks() -> None:
    tasks = [progress("a"), progress("b"), progress("c")]
    choice = choose_round(tasks, trials_left=12, busy=())
    assert choice is not None
    assert choice.trials == 4


def test_a_task_that_hardly_counts_gets_a_small_first_round() -> None:
    tasks = [progress("reshape", flops=0.0), progress("conv", flops=1e9, history=(1.0,), best_s=1)]
    choice = choose_round(tasks, trials_left=100, busy=())
    assert choice is not None
    assert choice.trials == SMALL_ROUND_TRIALS


def test_a_task_with_failures_only_is_given_up_after_some_rounds() -> None:
    tasks = [
        progress("broken", best_s=None, history=(0.0, 0.0, 0.0)),
        progress("works", best_s=1.0, history=(1.0, 1.0)),
    ]
    assert chosen(tasks) == "works"


def test_the_default_budget_grows_with_the_tasks_that_count() -> None:
    one = default_trials([progress("a")])
    two = default_trials([progress("a"), progress("b")])
    assert two == 2 * one
    assert one > ROUND_TRIALS


def test_the_networks_latency_is_unknown_until_each_task_has_one() -> None:
    known = progress("known", weight=2, best_s=0.5)
    assert estimated_latency_s([known]) == 1.0
    assert estimated_latency_s([known, progress("unknown")]) is None
