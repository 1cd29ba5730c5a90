"""``python -m agent.doctor.compile_job``: build a tiny program with TVM, run it, check it.

Writes ``{"version", "target", "cpu", "correct", "import_s", "build_s"}`` to ``--out`` or stdout.
Exits 0, or 1 with a traceback on stderr where TVM is missing or cannot build.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.frames import die_with_parent
from agent.profile.static import read_static_profile
from tunefleet.machine_lock import MachineLock
from tunefleet.targets import derive_target
from tunefleet.torch_free import forbid_torch

_LENGTH = 4096
"""float32 values: some pages, so that several threads have work and vector loads are used."""

_AXPY = """
@T.prim_func(s_tir=True)
def main(
    x: T.Buffer(({length},), "float32"), y: T.Buffer(({length},), "float32")
):
    T.func_attr({{"global_symbol": "main", "tirx.noalias": True}})
    for block in T.parallel({length} // 64):
        for lane in T.vectorized(64):
            y[block * 64 + lane] = y[block * 64 + lane] + x[block * 64 + lane] * T.float32(3)
"""


def try_compiler() -> dict[str, Any]:
    """Build, run and check ``y += 3 * x`` for this machine's own target.

    Raises:
        ImportError: TVM is missing.
        ValueError: no target is known for the architecture.
        RuntimeError: TVM cannot build for it.
    """
    profile = read_static_profile()
    os.environ["TVM_NUM_THREADS"] = str(profile.logical_cores)
    forbid_torch()
    began = time.monotonic()
    import numpy as np  # noqa: PLC0415 (after torch is forbidden, and counted)
    import tvm  # noqa: PLC0415
    from tvm.script import tirx  # noqa: PLC0415
    from tvm.target.codegen import llvm_get_system_cpu  # noqa: PLC0415

    import_s = time.monotonic() - began
    target = derive_target(replace(profile, llvm_cpu=llvm_get_system_cpu() or None))
    began = time.monotonic()
    function = tvm.script.from_source(_AXPY.format(length=_LENGTH), extra_vars={"T": tirx})
    parsed = tvm.target.Target(json.loads(target))
    library = tvm.compile(tvm.IRModule({"main": function}), target=parsed).jit()
    build_s = time.monotonic() - began
    x = np.arange(_LENGTH, dtype="float32")
    y = tvm.runtime.tensor(np.ones(_LENGTH, "float32"))
    library["main"](tvm.runtime.tensor(x), y)
    options = json.loads(target)
    return {
        "version": tvm.__version__,
        "target": target,
        "cpu": options.get("mcpu") or options["kind"],
        # Whole numbers below 2^24: float32 holds each exactly, fused or not.
        "correct": bool(np.array_equal(y.numpy(), 3 * x + 1)),
        "import_s": import_s,
        "build_s": build_s,
    }


def main() -> None:
    """Run the job that the command line names."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="agent.doctor.compile_job")
    parser.add_argument("--out", type=Path)
    out: Path | None = parser.parse_args().out
    with MachineLock().busy():
        result = json.dumps(try_compiler())
    if out is None:
        sys.stdout.write(result + "\n")
    else:
        out.write_text(result, encoding="utf-8")


if __name__ == "__main__":
    main()
