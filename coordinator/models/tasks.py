"""Extracting what there is to tune from a prepared network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import Schedule
from tvm.s_tir.analysis import estimate_tir_flops
from tvm.s_tir.meta_schedule.relax_integration import extract_tasks
from tvm_ffi import structural_hash


@dataclass(frozen=True)
class Task:
    """One function to tune."""

    name: str
    """The fused function's name, which says what it computes."""
    workload: str
    """Structural hash in hex."""
    module: Any
    """IRModule with the function as ``main``."""
    weight: int
    """How often the network calls it."""
    flops: float
    """Floating-point operations of one call; 0 for pure data movement."""


def workload_name(module: Any) -> str:
    """Name a workload by its structure, equal in every process."""
    return f"{structural_hash(module) & 0xFFFFFFFFFFFFFFFF:016x}"


def tunable_tasks(prepared: Any, target: str) -> list[Task]:
    """Extract the tasks of a network that :func:`coordinator.models.prepare.prepare` lowered.

    Left out is what has nothing to schedule: functions that are scheduled already, that have no
    block, whose shapes are not fixed, and reshapes, which compilation turns into views.

    Returns:
        The tasks, those with the most work in the network first.
    """
    tasks = []
    for extracted in extract_tasks(prepared, tvm.target.Target(target)):
        module = extracted.dispatched[0]
        if _can_tune(module["main"]):
            tasks.append(
                Task(
                    str(extracted.task_name),
                    workload_name(module),
                    module,
                    int(extracted.weight),
                    estimated_flops(module),
                )
            )
    return sorted(tasks, key=lambda task: (-task.flops * task.weight, task.workload))


def _can_tune(function: Any) -> bool:
    attrs = function.attrs
    if attrs is not None and attrs.get("tirx.is_scheduled", False):
        return False
    buffers = [parameter for parameter in function.params if isinstance(parameter, tirx.Buffer)]
    if len(buffers) < len(function.params) or not all(_is_fixed(buffer) for buffer in buffers):
        return False
    if relax.analysis.has_reshape_pattern(function):
        return False
    schedule = Schedule(function)
    return len(schedule.get_child_blocks(schedule.get_sblock("root"))) > 0


def _is_fixed(buffer: Any) -> bool:
    return all(isinstance(size, tirx.IntImm) for size in buffer.shape)


def estimated_flops(module: Any) -> float:
    """Return the floating-point operations of one call; 0 where TVM cannot tell."""
    try:
        return float(estimate_tir_flops(module))
    except Exception:  # it refuses loops that depend on data, which are tunable all the same
        return 0.0
