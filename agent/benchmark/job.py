"""``python -m agent.benchmark.job``: time whole networks side by side.

Spec: ``{"subjects": [{"name", "kind": "tvm" | "onnx", "path"}], "inputs": npz, "outputs": npz,
"threads": n, "repeat": n, "min_repeat_ms": ms}``, and optionally ``"timeout_s"`` (default 300), the
most that one subject may take in all, and ``"per_op"`` (default false), whether to find out where
the time goes inside. The archives hold ``input_0``, ... and ``output_0``, ...

Result: ``{"results": [{"name", "samples_s": [seconds per run], "max_abs_err": float | null,
"error": text, "quiet": bool, "profiled_s": [seconds per run], "between_s": [the same],
"ops": [{"name", "op", "calls", "seconds"}]}]}``, in the order of the subjects. The last three are
empty unless asked for: ``profiled_s`` are runs that noted where their time went, ``between_s`` what
of it passed between the calls, ``ops`` what they found, for one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.frames import (
    FrameError,
    WorkerDied,
    WorkerProcess,
    die_with_parent,
    start_worker,
)

_TIMEOUT_S = 300.0
"""An untuned network of 20 GFLOP on a small board takes tens of seconds a run."""


@dataclass
class _Entry:
    name: str
    left_s: float
    samples_s: list[float] = field(default_factory=list)
    max_abs_err: float | None = None
    error: str = ""
    quiet: bool = True
    profiled_s: list[float] = field(default_factory=list)
    between_s: list[float] = field(default_factory=list)
    ops: list[dict[str, Any]] = field(default_factory=list)
    worker: WorkerProcess | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "samples_s": self.samples_s,
            "max_abs_err": self.max_abs_err,
            "error": self.error,
            "quiet": self.quiet,
            "profiled_s": self.profiled_s,
            "between_s": self.between_s,
            "ops": self.ops,
        }


async def benchmark(spec: Mapping[str, Any], log_dir: Path) -> dict[str, Any]:
    """Time every subject, a sample of each in turn so that drift meets all alike.

    Args:
        spec: see the module's docstring.
        log_dir: where the subjects' own output goes.

    Returns:
        The result; a subject that crashes, hangs or refuses has an ``error`` and costs the others
        nothing.
    """
    timeout_s = float(spec.get("timeout_s", _TIMEOUT_S))
    per_op = bool(spec.get("per_op"))
    entries = [_Entry(subject["name"], timeout_s) for subject in spec["subjects"]]
    try:
        # One after the other: on a small board two networks that load at once may not fit.
        for index, (entry, subject) in enumerate(zip(entries, spec["subjects"], strict=True)):
            await _load(entry, subject, spec, log_dir / f"subject-{index}.log")
            _signal(entry, signal.SIGSTOP)
        for turn in range(int(spec["repeat"])):
            # Each is first, second, ... equally often.
            first = turn % len(entries)
            for entry in entries[first:] + entries[:first]:
                await _sample(entry, per_op=per_op)
        if per_op:
            for entry in entries:
                await _collect(entry)
    finally:
        for entry in entries:
            if entry.worker is not None:
                _signal(entry, signal.SIGCONT)
                await entry.worker.close()
    return {"results": [entry.to_json() for entry in entries]}


async def _load(
    entry: _Entry,
    subject: Mapping[str, Any],
    spec: Mapping[str, Any],
    log_path: Path,
) -> None:
    threads = int(spec["threads"])
    environment = {
        "TVM_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    entry.worker = await start_worker("agent.benchmark.subject", log_path, environment)
    request = {
        "op": "load",
        "kind": subject["kind"],
        "path": subject["path"],
        "inputs": spec["inputs"],
        "outputs": spec["outputs"],
        "threads": threads,
        "min_repeat_ms": spec["min_repeat_ms"],
    }
    answer = await _ask(entry, request)
    if answer is not None:
        entry.max_abs_err = answer["max_abs_err"]


async def _sample(entry: _Entry, *, per_op: bool) -> None:
    kinds = [("time", entry.samples_s), *([("profile", entry.profiled_s)] if per_op else [])]
    with _awake(entry):
        for kind, samples in kinds:
            answer = await _ask(entry, {"op": kind})
            if answer is not None:
                samples.append(answer["sample_s"])
                entry.quiet = entry.quiet and answer["quiet"]


async def _collect(entry: _Entry) -> None:
    with _awake(entry):
        answer = await _ask(entry, {"op": "found"})
    if answer is not None:
        entry.ops, entry.between_s = answer["ops"], answer["between_s"]


@contextmanager
def _awake(entry: _Entry) -> Iterator[None]:
    """Let a subject run for a while. Thread pools of stopped ones cannot spin beside it."""
    _signal(entry, signal.SIGCONT)
    try:
        yield
    finally:
        _signal(entry, signal.SIGSTOP)


def _signal(entry: _Entry, number: signal.Signals) -> None:
    if entry.worker is not None:
        with suppress(ProcessLookupError):
            os.killpg(entry.worker.pid, number)


async def _ask(entry: _Entry, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Ask a subject that has not failed yet; ``None`` if it has, or does now."""
    if entry.worker is None or entry.error:
        return None
    started = time.monotonic()
    try:
        async with asyncio.timeout(entry.left_s):
            await entry.worker.send(request)
            answer = await entry.worker.recv()
    except TimeoutError:
        entry.error = "it did not finish in the time given"
    except (WorkerDied, FrameError) as e:
        entry.error = str(e)
    else:
        entry.left_s -= time.monotonic() - started
        if "error" not in answer:
            return answer
        entry.error = answer["error"]
    await entry.worker.kill()
    return None


def main() -> None:
    """Run the job that the command line names."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="agent.benchmark.job")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    spec = json.loads(arguments.spec.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="tunefleet-benchmark-") as logs:
        result = asyncio.run(benchmark(spec, Path(logs)))
    arguments.out.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
