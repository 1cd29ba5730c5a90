"""Where a network's time goes, beside what its tasks took when they were measured alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.campaigns.operators import operator_of
from coordinator.state.records import GroupRecord, TaskProgress
from tunefleet.leases import OpTime

_TUNED = "tuned"


def group_result(
    group: GroupRecord,
    device: str,
    functions: Mapping[str, str],
    tasks: Sequence[TaskProgress],
) -> dict[str, Any]:
    """Say what came of one group's benchmark.

    Args:
        group: with its samples, and its operators where those were asked for.
        device: name of the one that measured.
        functions: the workload of each function of the tuned network, by name.
        tasks: of the campaign that compiled it, in this group.

    Returns:
        ``{"target", "fingerprint", "device", "error", "max_abs_err", "subjects": {name: see
        _subject}, "by_operator": see _by_operator}``.
    """
    alone = {t.task.key.workload: tuned_latency_s(t) for t in tasks}
    names = [*group.benchmark_s, *(n for n in group.subject_errors if n not in group.benchmark_s)]
    return {
        "target": group.target,
        "fingerprint": group.fingerprint,
        "device": device,
        "error": group.benchmark_error,
        "max_abs_err": group.max_abs_err,
        "subjects": {
            # Only what was tuned consists of tasks: the untuned network has another layout.
            name: _subject(group, name, *((functions, alone) if name == _TUNED else ({}, {})))
            for name in names
        },
        "by_operator": _by_operator(group.ops),
    }


def tuned_latency_s(progress: TaskProgress) -> float | None:
    """Return a task's best latency when its campaign ended; later ones may have found better."""
    return progress.best_s if progress.final_s is None else progress.final_s


def _subject(
    group: GroupRecord,
    name: str,
    functions: Mapping[str, str],
    alone: Mapping[str, float | None],
) -> dict[str, Any]:
    """Say where one subject's time goes.

    Returns:
        Seconds of one run: ``end_to_end_s``, ``samples_s``, ``profiled_s`` (the same while
        profiled), ``overhead_s`` (what profiling added), ``between_s`` (what then passed between
        the calls, which has part of that), ``ops_s`` (all operators together), ``remainder_s`` (end
        to end without these, and so noise as well), ``tasks_s`` and ``tasks_alone_s`` (those
        operators that were measured as tasks, in the network and alone); ``ops``, the most
        expensive first, ``{"name", "op", "operator", "calls", "seconds", "share", "call_s",
        "workload", "task_s" (one call alone), "ratio" (call_s over task_s)}``; ``error``. What was
        not measured is null.
    """
    samples = group.benchmark_s.get(name, ())
    whole, observed = _median(samples), _median(group.profiled_s.get(name, ()))
    ops = [_op(op, whole, functions, alone) for op in group.ops.get(name, ())]
    ops.sort(key=lambda row: -row["seconds"])
    compared = [row for row in ops if row["ratio"] is not None]
    total = sum(row["seconds"] for row in ops) if ops else None
    return {
        "end_to_end_s": whole,
        "samples_s": list(samples),
        "profiled_s": observed,
        "overhead_s": None if whole is None or observed is None else observed - whole,
        "between_s": _median(group.between_s.get(name, ())),
        "ops_s": total,
        "remainder_s": None if whole is None or total is None else whole - total,
        "tasks_s": sum(row["seconds"] for row in compared) if compared else None,
        "tasks_alone_s": sum(r["calls"] * r["task_s"] for r in compared) if compared else None,
        "ops": ops,
        "error": group.subject_errors.get(name, ""),
    }


def _median(samples: Sequence[float]) -> float | None:
    return statistics.median(samples) if samples else None


def _op(
    op: OpTime,
    whole: float | None,
    functions: Mapping[str, str],
    alone: Mapping[str, float | None],
) -> dict[str, Any]:
    call_s = op.seconds / op.calls if op.calls else None
    workload = functions.get(op.name, "")
    task_s = alone.get(workload)
    return {
        "name": op.name,
        "op": op.op,
        "operator": operator_of(op.name, op.op),
        "calls": op.calls,
        "seconds": op.seconds,
        "share": op.seconds / whole if whole else None,
        "call_s": call_s,
        # Reshapes and the like have a function, and are no task.
        "workload": workload if workload in alone else "",
        "task_s": task_s,
        "ratio": call_s / task_s if call_s is not None and task_s else None,
    }


def _by_operator(ops: Mapping[str, Sequence[OpTime]]) -> list[dict[str, Any]]:
    """Add up each subject's seconds by kind of operator, what the tuned network spends most on
    first: ``{"operator", "seconds": {subject: s}}``.
    """
    total: dict[str, dict[str, float]] = {}
    for subject, found in ops.items():
        for op in found:
            row = total.setdefault(operator_of(op.name, op.op), {})
            row[subject] = row.get(subject, 0.0) + op.seconds
    return [
        {"operator": kind, "seconds": row}
        for kind, row in sorted(total.items(), key=lambda pair: -pair[1].get(_TUNED, 0.0))
    ]
