"""The life of one candidate, in a process of its own: build, say so, wait, run, report."""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from agent.frames import Channel
from agent.measure.arguments import input_sets
from agent.measure.canary import Canary
from agent.measure.conditions import ForeignLoad, waited_s
from agent.measure.sampling import Instruments, Sampling
from agent.measure.timer import Timer
from tunefleet.leases import BASELINE_TRACE, MeasurePolicy

_SHARED_BYTES = 256 * 2**20
"""Larger arguments may be more than the machine has: that must cost a candidate, not the worker."""
_FILL_BYTES = 2**20
"""Inputs repeat with this period: enough to look random, cheap to make."""


@dataclass(frozen=True)
class BuildRequest:
    """What a candidate is built from; the objects are TVM's, inherited through the fork."""

    workload: Any
    """IRModule with one PrimFunc ``main``."""
    trace: str
    target: Any
    policy: MeasurePolicy
    canary: Canary | None = None
    """The reference kernel, compiled before the fork."""
    inputs: Sequence[Sequence[Any]] = ()
    """Sets of arguments to run with in turn, made before the fork: what is only read is shared.
    None are made here where there are none."""


def live(request: BuildRequest, channel: Channel) -> None:
    """Build, wait for the word, run; report each over the channel.

    Sends ``{"phase": "built", "build_s", "build_cpu_s"}``. When ``{"best_s", "usual_s",
    "max_attempts"}`` has come (the best latency known and the canary's usual reading may be null)
    it sends ``{"phase": "ran",
    "run_s", "load": {...} or null}`` with the fields of ``Sampled`` and, in it, of ``Load``. In
    place of either it may send ``{"phase": "failed", "error", "out_of_memory"}``.
    """
    # It lives for a second at most, and collecting would copy the pages it shares.
    gc.disable()
    try:
        began, cpu_began = time.monotonic(), time.process_time()
        module = build(request)
        inputs = request.inputs or [make_inputs(module.inputs)]
        build_s, build_cpu_s = time.monotonic() - began, time.process_time() - cpu_began
        channel.send({"phase": "built", "build_s": build_s, "build_cpu_s": build_cpu_s})
        go = channel.recv()
        if go is None:
            return
        channel.send({"phase": "ran", **_run(request, module.loaded, inputs, go)})
    except MemoryError as e:
        channel.send({"phase": "failed", "error": f"out of memory: {e}", "out_of_memory": True})
    except Exception as e:  # whatever TVM raises is the candidate's verdict, not our failure
        error = f"{type(e).__name__}: {e}"
        channel.send({"phase": "failed", "error": error, "out_of_memory": False})


def _run(
    request: BuildRequest, loaded: Any, inputs: Sequence[Sequence[Any]], go: dict[str, Any]
) -> dict[str, Any]:
    load = ForeignLoad()
    began = time.monotonic()
    timer = Timer(loaded, inputs, request.policy)
    tools = Instruments(
        take=timer.take,
        canary=request.canary.read if request.canary is not None else None,
        waited=waited_s,
    )
    policy = replace(request.policy, max_attempts=go["max_attempts"])
    sampled = Sampling(policy, tools, go["best_s"], go["usual_s"]).run()
    run_s = time.monotonic() - began
    met = load.read()
    return {
        **asdict(sampled),
        "kernel_s": timer.warm_up_s + sampled.kernel_s,
        "run_s": run_s,
        "load": None if met is None else asdict(met),
    }


@dataclass(frozen=True)
class Built:
    """A program ready to run."""

    loaded: Any
    inputs: list[Any]
    """TVM's description of each argument."""


def build(request: BuildRequest) -> Built:
    """Apply the trace and compile, down to machine code in this process's memory."""
    import tvm  # noqa: PLC0415 (the worker imported it long ago)
    from tvm.s_tir import Schedule  # noqa: PLC0415
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo  # noqa: PLC0415
    from tvm.s_tir.schedule import Trace  # noqa: PLC0415
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock  # noqa: PLC0415

    schedule = Schedule(request.workload, error_render_level="fast")
    Trace.apply_json_to_schedule(json.loads(request.trace), schedule)
    # As MetaSchedule's own builder does: weights are laid out once, at compile time of the model.
    module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(schedule.mod)
    inputs = ArgInfo.from_entry_func(schedule.mod, remove_preproc=True)
    # Its checks of the arguments' shapes, which make_inputs fulfils, are a twelfth of the work.
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        loaded = tvm.compile(module, target=request.target).jit()
    loaded.get_function("main")  # LLVM's JIT generates machine code at the first look-up
    return Built(loaded, list(inputs))


def arguments(workload: Any, policy: MeasurePolicy) -> list[list[Any]]:
    """Make what the candidates of a workload are run with, in turn.

    Args:
        workload: IRModule with one PrimFunc ``main``.
        policy: where it has caches flushed, one set is enough.

    Returns:
        None at all where they are so large that each candidate had better make, and answer for,
        its own.
    """
    from tvm.s_tir.meta_schedule.arg_info import ArgInfo  # noqa: PLC0415

    infos = list(ArgInfo.from_entry_func(workload, remove_preproc=True))
    if sum(_bytes_of(info) for info in infos) > _SHARED_BYTES:
        return []
    inputs = make_inputs(infos)
    return [inputs] if policy.flush_cache else input_sets(inputs)


def _bytes_of(info: Any) -> int:
    return math.prod(int(n) for n in info.shape) * np.dtype(str(info.dtype)).itemsize


def warm_up(target: str) -> None:
    """Build a small program in this process, as candidates will be in its children.

    What is done for the first time here (tables of LLVM, imports, pages of libraries) costs 10 ms
    in each child otherwise.
    """
    import tvm  # noqa: PLC0415
    from tvm import te  # noqa: PLC0415

    x = te.placeholder((16, 16), name="x")
    y = te.compute((16, 16), lambda i, j: x[i, j] + 1.0, name="y")
    workload = tvm.IRModule({"main": te.create_prim_func([x, y])})
    request = BuildRequest(workload, BASELINE_TRACE, tvm.target.Target(target), MeasurePolicy())
    make_inputs(build(request).inputs)


def make_inputs(infos: list[Any]) -> list[Any]:
    """Allocate and fill the arguments of a program, its outputs included."""
    import tvm  # noqa: PLC0415

    random = np.random.default_rng(0)
    return [
        tvm.runtime.tensor(random_values(random, str(info.dtype), [int(n) for n in info.shape]))
        for info in infos
    ]


def random_values(
    random: np.random.Generator, dtype: str, shape: list[int]
) -> np.ndarray[Any, np.dtype[Any]]:
    """Make an input that neither skips work (zeros, denormals) nor leaves bounds (as an index).

    Returns:
        Floats in [0.5, 1.5), integers and booleans of 0 and 1.

    Raises:
        TypeError: NumPy has no such dtype.
    """
    kind = np.dtype(dtype)
    period = min(int(np.prod(shape)), _FILL_BYTES // kind.itemsize)
    if kind.kind == "f":
        values = (random.random(period, dtype=np.float32) + np.float32(0.5)).astype(kind)
    else:
        values = random.integers(0, 2, period).astype(kind)
    return np.resize(values, shape)
