"""``python -m agent.profile.job``: measure this device, in a process of its own.

Reads ``{"profile": {...}, "target": "..." | null}`` and writes ``{"llvm_cpu": "..." | null,
"measured": {...}, "undisturbed": bool}``. Exits 0, or 1 with a traceback on
stderr where nothing could be measured (no target for the architecture, TVM missing).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.frames import die_with_parent
from agent.profile.figures import buffer_sizes, build_figures
from agent.profile.kernels import compile_kernels
from agent.profile.timing import time_figures
from tunefleet.devices import DeviceProfile
from tunefleet.machine_lock import MachineLock
from tunefleet.targets import derive_target
from tunefleet.torch_free import forbid_torch


def measure(profile: DeviceProfile, target: str | None) -> dict[str, Any]:
    """Measure the machine this process runs on.

    Args:
        profile: its static profile; the cache sizes decide the buffers' sizes.
        target: the canonical target to compile for; by default the one derived from the profile.

    Returns:
        ``llvm_cpu``, ``measured`` (fields of :class:`tunefleet.devices.MeasuredProfile`) and
        ``undisturbed``: whether the machine had nothing else to do, so that they may be kept.

    Raises:
        ValueError: no target is known for the architecture, or TVM refuses the one given.
        RuntimeError: TVM cannot compile for the target.
    """
    # TVM reads it when its first parallel loop starts.
    os.environ["TVM_NUM_THREADS"] = str(profile.logical_cores)
    forbid_torch()
    lock = MachineLock()
    with lock.busy():
        from tvm.target.codegen import llvm_get_system_cpu  # noqa: PLC0415

        llvm_cpu = llvm_get_system_cpu() or None
    chosen = target or derive_target(replace(profile, llvm_cpu=llvm_cpu))
    with lock.busy():
        kernels = compile_kernels(chosen, profile.logical_cores)
        figures = build_figures(kernels, buffer_sizes(profile))
    timed = time_figures(figures, lock)
    return {"llvm_cpu": llvm_cpu, "measured": dict(timed.values), "undisturbed": timed.undisturbed}


def main() -> None:
    """Run the job that the command line names."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="agent.profile.job")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text(encoding="utf-8"))
    profile = DeviceProfile.from_json(json.dumps(spec["profile"]))
    result = measure(profile, spec["target"])
    arguments.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
