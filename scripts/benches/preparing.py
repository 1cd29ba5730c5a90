"""What preparing candidates for a cost model takes, by what describes a program."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coordinator.dataset.reading import Refused, find_parts, open_trials, read_all, read_workloads
from coordinator.state.trial_records import WorkloadRecord
from scripts.benches.harness import Figure, figure, note
from tunefleet.families import FAMILIES

_OPERATOR = "conv2d"
"""What networks spend most of their time in."""
_REPEATS = 5
_PER = 1000


def preparing_figures(dataset: Path) -> dict[str, Figure]:
    """Time all descriptions of the shipped candidates of one workload, on this one core.

    The workload is the convolution that networks run most often, for the target with the widest
    vectors.

    Returns:
        Seconds for 1,000 candidates: ``features_stores_s_per_1000``, TVM's extractor on schedules
        that are applied already, as agents run it; ``features_row_s_per_1000``, the schedules' rows
        from the same, as agents make them; ``features_steps_s_per_1000``, from a trace's text to
        the steps a model of them is fed; and ``apply_s_per_1000``, a trace made into a scheduled
        program, which stores need and steps do not.
    """
    from agent.search.space import extract_features, load_module  # noqa: PLC0415 (TVM: seconds)
    from agent.search.trace_rows import TraceRows  # noqa: PLC0415
    from agent.tvm_startup import import_tvm  # noqa: PLC0415

    tvm = import_tvm()
    from tvm.s_tir import Schedule  # noqa: PLC0415
    from tvm.s_tir import meta_schedule as ms  # noqa: PLC0415
    from tvm.s_tir.schedule import Trace  # noqa: PLC0415

    from coordinator.costmodel.steps import encode  # noqa: PLC0415
    from tunefleet.schedules.trace import trace_steps  # noqa: PLC0415

    workload, text = _workload(dataset)
    target, traces = _traces(dataset, workload)
    note(f"costmodel: preparing {len(traces)} candidates of {workload}")
    module = load_module(text)
    context = ms.TuneContext(mod=module, target=tvm.target.Target(json.loads(target)))
    extractor = ms.feature_extractor.PerStoreFeature(extract_workload=True)

    def applied(trace: str) -> Any:
        schedule = Schedule(module, error_render_level="none")
        Trace.apply_json_to_schedule(json.loads(trace), schedule)
        return schedule

    def rows() -> object:
        described = TraceRows()
        return [described.row(schedule.trace) for schedule in schedules]

    schedules = [applied(trace) for trace in traces]
    works: dict[str, Callable[[], object]] = {
        "features_stores": lambda: [extract_features(extractor, context, s) for s in schedules],
        "features_row": rows,
        "features_steps": lambda: [encode(trace_steps(trace)) for trace in traces],
        "apply": lambda: [applied(trace) for trace in traces],
    }
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(_REPEATS):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append((time.perf_counter() - began) * _PER / len(traces))
    return {f"{name}_s_per_{_PER}": figure(values) for name, values in seconds.items()}


def _workload(dataset: Path) -> tuple[str, str]:
    """Return name and module of the convolution that networks run most often.

    Where there is none, of whatever is run most often.
    """
    parts = find_parts(dataset)
    if parts.workloads is None:
        raise ValueError(f"{dataset} has no workloads, without which nothing can be lowered")
    known = [(w, module) for w, module in read_workloads(parts.workloads) if module is not None]

    def order(item: tuple[WorkloadRecord, str]) -> tuple[bool, int, float]:
        found = item[0]
        times = sum(n for name, n in found.sources.items() if name not in FAMILIES)
        return _OPERATOR in found.name, times, found.flops

    chosen, module = max(known, key=order)
    return chosen.workload, module


def _traces(dataset: Path, workload: str) -> tuple[str, list[str]]:
    """Return the last of a workload's targets by name, and its traces there."""
    tables = [open_trials(path) for path in find_parts(dataset).trials]
    found: dict[str, list[str]] = {}
    for item in read_all(tables, features=False):
        if not isinstance(item, Refused) and item[0].key.workload == workload:
            found.setdefault(item[0].key.target, []).append(item[0].trial.trace)
    target = max(found)
    return target, found[target]
