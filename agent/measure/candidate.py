"""The life of one candidate, in a process of its own: build, say so, wait, run, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.frames import Channel
from agent.measure.conditions import ForeignLoad
from tunefleet.leases import MeasurePolicy

SLOW_RUN_S = 1.0
"""A program that takes longer than this is timed run by run: its samples are hardly noisy, and
averaging several would exceed the time limit."""

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


def live(request: BuildRequest, channel: Channel) -> None:
    """Build, wait for the word, run; report each over the channel.

    Sends ``{"phase": "built", "build_s"}``, and after any message has come back
    ``{"phase": "ran", "samples_s", "run_s", "foreign_cores"}``. In place of either it may send
    ``{"phase": "failed", "error", "out_of_memory"}``.
    """
    try:
        began = time.monotonic()
        module = _build(request)
        inputs = _make_inputs(module.inputs)
        channel.send({"phase": "built", "build_s": time.monotonic() - began})
        if channel.recv() is None:
            return
        load = ForeignLoad()
        began = time.monotonic()
        samples = _time(module.loaded, inputs, request.policy)
        run_s = time.monotonic() - began
        cores = load.cores()
        channel.send({"phase": "ran", "samples_s": samples, "run_s": run_s, "foreign_cores": cores})
    except MemoryError as e:
        channel.send({"phase": "failed", "error": f"out of memory: {e}", "out_of_memory": True})
    except Exception as e:  # whatever TVM raises is the candidate's verdict, not our failure
        error = f"{type(e).__name__}: {e}"
        channel.send({"phase": "failed", "error": error, "out_of_memory": False})


@dataclass(frozen=True)
class _Built:
    loaded: Any
    inputs: list[Any]


def _build(request: BuildRequest) -> _Built:
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
    loaded = tvm.compile(module, target=request.target).jit()
    loaded.get_function("main")  # LLVM's JIT generates machine code at the first look-up
    return _Built(loaded, list(inputs))


def _make_inputs(infos: list[Any]) -> list[Any]:
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


def _time(loaded: Any, inputs: list[Any], policy: MeasurePolicy) -> list[float]:
    """Return seconds per run, one value a sample; fewer of them where runs are slow."""
    import tvm  # noqa: PLC0415

    main = loaded.get_function("main")
    deadline = time.monotonic() + policy.run_timeout_s
    # Starts the thread pool, touches all pages, and is discarded.
    first_s = _time_once(main, inputs)
    if first_s > SLOW_RUN_S:
        samples = [first_s]
        while len(samples) <= policy.repeat and time.monotonic() + 1.5 * first_s < deadline:
            samples.append(_time_once(main, inputs))
        return samples[1:] or samples
    # Beside the samples the evaluator makes one more run; half the time is a margin for noise.
    affordable = int(policy.run_timeout_s / 2 / max(first_s, 1e-9) / policy.repeat)
    evaluator = loaded.time_evaluator(
        "main",
        tvm.cpu(),
        number=max(1, min(policy.number, affordable)),
        repeat=policy.repeat,
        min_repeat_ms=policy.min_repeat_ms,
    )
    return [float(sample) for sample in evaluator(*inputs).results]


def _time_once(main: Any, inputs: list[Any]) -> float:
    began = time.perf_counter()
    main(*inputs)
    return time.perf_counter() - began
