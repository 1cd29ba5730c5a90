"""From a prepared network to a shared library, with or without tuned schedules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from coordinator.models.linker import Linker
from coordinator.models.tasks import workload_name


def apply_schedules(prepared: Any, database: Any, target: str) -> tuple[Any, set[str]]:
    """Replace the prepared functions that the database knows by their scheduled form.

    Returns:
        The new module, and the workloads that were replaced in it.
    """
    built_for = tvm.target.Target(target)
    with built_for, database, tvm.transform.PassContext(opt_level=3):
        scheduled = relax.transform.MetaScheduleApplyDatabase()(prepared)
    replaced = set()
    for variable, function in prepared.functions.items():
        if isinstance(function, tvm.tirx.PrimFunc):
            after = scheduled[variable.name_hint]
            if after.attrs is not None and after.attrs.get("tirx.is_scheduled", False):
                replaced.add(_workload_of(function))
    return scheduled, replaced


def function_workloads(prepared: Any) -> dict[str, str]:
    """Return the workload of each function of a prepared network, by the function's name.

    Compiling keeps the names, and several functions may be of one workload.
    """
    return {
        str(variable.name_hint): _workload_of(function)
        for variable, function in prepared.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }


def build_library(module: Any, target: str, path: Path) -> None:
    """Compile a prepared module, scheduled or not, into a shared library for Relax's VM.

    Raises:
        LinkError: the linker refused.
        ValueError: no linker for the target.
    """
    built_for = tvm.target.Target(target)

    # As in TVM's cpu_generic pipeline, but nothing that fuses or legalises again.
    lower = tvm.transform.Sequential(
        [
            relax.transform.RewriteDataflowReshape(),
            relax.transform.ToNonDataflow(),
            relax.transform.RemovePurityChecking(),
            relax.transform.CallTIRRewrite(),
            relax.transform.StaticPlanBlockMemory(),
            relax.transform.LowerAllocTensor(),
            relax.transform.KillAfterLastUse(),
            relax.transform.LowerRuntimeBuiltin(),
            relax.transform.ComputePrimValue(),
            relax.transform.VMShapeLower(),
            relax.transform.AttachGlobalSymbol(),
        ]
    )
    with built_for, tvm.transform.PassContext(opt_level=3):
        executable = relax.build(module, target=built_for, relax_pipeline=lower)
    executable.export_library(str(path), fcompile=Linker(target))


def _workload_of(function: Any) -> str:
    """Name a function of a network as extraction names its task."""
    normalised = tvm.get_global_func("tvm.s_tir.meta_schedule.normalize_mod")(function)
    return workload_name(normalised)
