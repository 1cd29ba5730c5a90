"""The measuring worker: a warm process that forks a child for each candidate.

Run as ``python -m agent.measure.worker --fd N`` by :class:`agent.measure.client.Measurer`. It has
no gRPC and a single thread, so that it may fork. Requests and answers, as frames:

- ``{"op": "ping"}``: ``{"event": "pong"}``.
- ``{"op": "measure", "workload_path", "target", "policy": {...}, "best_s", "build_workers",
  "quiet_timeout_s", "state_dir", "batch": [{"candidate", "trace"}, ...]}``: any number of
  ``{"event": "phase", "phase": "build" | "built" | "run", "candidates": [...]}`` and one
  ``{"event": "result", ...}`` with the fields of ``MeasureOutcome`` for each candidate, then
  ``{"event": "done"}``.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from pathlib import Path
from typing import Any

from agent.frames import Channel, worker_channel
from agent.measure.canary import Canary, make_canary
from agent.measure.candidate import arguments, warm_up
from agent.measure.history import CanaryHistory
from agent.measure.outcome import MeasureOutcome, shorten_error
from agent.measure.pipeline import Bench, measure_batch
from agent.measure.sandbox import become_subreaper
from agent.recorder import RunningMark
from agent.tvm_startup import import_tvm
from tunefleet.leases import MeasurePolicy
from tunefleet.machine_lock import MachineLock
from tunefleet.targets import target_cores
from tunefleet.torch_free import forbid_torch
from tunefleet.trials import Verdict

_TARGETS_KEPT = 4
"""Targets whose reference kernel stays compiled; an agent seldom has more than two."""


def main() -> None:
    """Serve requests until the agent is gone."""
    channel = worker_channel()
    become_subreaper()
    forbid_torch()
    # Longer than busy sections should be, but importing cannot be paused, and happens once.
    with MachineLock().busy():
        import_tvm()
    _freeze()
    while (request := channel.recv()) is not None:
        if request["op"] == "ping":
            channel.send({"event": "pong"})
        else:
            _measure(channel, request)
            channel.send({"event": "done"})


def _freeze() -> None:
    """Keep what is here for good; children that do not collect it do not copy its pages either."""
    gc.collect()
    gc.freeze()


def _measure(channel: Channel, request: dict[str, Any]) -> None:
    batch = [(item["candidate"], item["trace"]) for item in request["batch"]]
    try:
        bench = _make_bench(request)
    except Exception as e:  # the workload or target is at fault, not the worker
        error = shorten_error(f"the workload cannot be loaded: {type(e).__name__}: {e}")
        for name, _ in batch:
            _send_result(channel, MeasureOutcome(name, Verdict.BUILD_ERROR, error=error))
        return

    with RunningMark(Path(request["state_dir"])) as mark:

        def on_phase(phase: str, names: list[str]) -> None:
            if phase == "run":
                mark.set(names[0])
            channel.send({"event": "phase", "phase": phase, "candidates": names})

        for outcome in measure_batch(bench, batch, on_phase, request["best_s"]):
            mark.clear()
            _send_result(channel, outcome)
    bench.history.save()


def _make_bench(request: dict[str, Any]) -> Bench:
    import tvm  # noqa: PLC0415 (import_tvm has to come first)

    target = request["target"]
    threads = target_cores(target) or len(os.sched_getaffinity(0))
    # Read by each child when its runtime's thread pool starts.
    os.environ["TVM_NUM_THREADS"] = str(threads)
    text = Path(request["workload_path"]).read_text(encoding="utf-8")
    policy = MeasurePolicy(**request["policy"])
    return Bench(
        workload=tvm.ir.load_json(text),
        target=tvm.target.Target(target),
        policy=policy,
        threads=threads,
        build_workers=max(1, int(request["build_workers"])),
        quiet_timeout_s=float(request["quiet_timeout_s"]),
        lock=MachineLock(),
        canary=_prepare(target, threads),
        history=CanaryHistory(Path(request["state_dir"]), target, threads),
        inputs=_inputs(text, policy),
    )


@functools.lru_cache(1)
def _inputs(workload: str, policy: MeasurePolicy) -> list[list[Any]]:
    """Make what the candidates of a workload run with; none where they cannot be made.

    They may be too large for this machine: then each candidate fails by itself, with its verdict.
    """
    import tvm  # noqa: PLC0415 (import_tvm has to come first)

    with MachineLock().busy():
        try:
            return arguments(tvm.ir.load_json(workload), policy)
        except Exception as e:
            print(f"no inputs made before the fork: {e}", file=sys.stderr)  # noqa: T201 (the log)
            return []


@functools.lru_cache(_TARGETS_KEPT)
def _prepare(target: str, threads: int) -> Canary | None:
    """Compile the reference kernel for a target, or ``None`` if this TVM cannot.

    A first candidate is built here, so that its children inherit what building touches first.
    """
    with MachineLock().busy():
        try:
            canary = make_canary(target, threads)
            warm_up(target)
        except Exception as e:  # candidates for this target will fail too, each with its verdict
            print(f"no reference kernel for {target}: {e}", file=sys.stderr)  # noqa: T201 (the log)
            return None
    _freeze()
    return canary


def _send_result(channel: Channel, outcome: MeasureOutcome) -> None:
    channel.send({"event": "result", **outcome.to_message()})


if __name__ == "__main__":
    main()
