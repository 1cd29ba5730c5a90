"""Tasks at some stage of their tuning, as tests of scheduling need them."""

from __future__ import annotations

from coordinator.state.records import TaskKey, TaskProgress, TaskRecord


def progress(
    name: str,
    *history: float,
    flops: float = 1e9,
    weight: int = 1,
    rounds: int | None = None,
    round_trials: int = 16,
    exhausted: bool = False,
    trial_s: float | None = None,
    has_baseline: bool = True,
) -> TaskProgress:
    """Make a task from the best latencies, in seconds, after each of its equally large rounds.

    With ``rounds`` and no history, those rounds brought failures only. The first latency is that of
    the program without a schedule, too, unless that was not measured.
    """
    key = TaskKey(workload=name, target="{}", fingerprint="f")
    made = len(history) if rounds is None else rounds
    return TaskProgress(
        TaskRecord(key, name, weight, flops, workload_digest="", exhausted=exhausted),
        trials=made * round_trials,
        baseline_s=history[0] if history and has_baseline else None,
        best_s=history[-1] if history else None,
        rounds=made,
        best_by_round_s=history,
        trials_by_round=tuple((n + 1) * round_trials for n in range(len(history))),
        trial_s=trial_s,
    )
