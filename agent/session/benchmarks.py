"""Benchmark leases: a job of its own times whole models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.frames import describe_exit
from agent.session.coordinator import WorkResult
from tunefleet.leases import BenchmarkResult, BenchmarkSpec, OpTime
from tunefleet.v1 import lease_pb2

JOB_MODULE = "agent.benchmark.job"

_START_LIMIT_S = 120.0
"""Importing TVM and onnxruntime on a slow board, and waiting for others' timing."""
_LOG_TAIL_BYTES = 2000
_SUFFIX_BY_KIND = {"tvm": ".so", "onnx": ".onnx"}
"""TVM chooses its loader by a file's suffix, which blobs lack, and follows symbolic links."""


async def run_benchmark(
    spec: BenchmarkSpec, blobs: Mapping[str, Path], log_path: Path, module: str = JOB_MODULE
) -> WorkResult:
    """Run one benchmark; it ends with this, also when this is cancelled.

    Args:
        spec: what to run.
        blobs: the file of each blob that the spec names.
        log_path: file for the job's output, begun anew.
        module: the job.

    Returns:
        DONE with one result a subject, or FAILED with what the job said last.
    """
    with tempfile.TemporaryDirectory(prefix="tunefleet-benchmark-") as name:
        folder = Path(name)
        spec_path, out_path = folder / "spec.json", folder / "out.json"
        spec_path.write_text(json.dumps(_job_spec(spec, blobs, folder)), encoding="utf-8")
        # The job ends a subject that takes too long; this is for a job that does not end itself.
        limit_s = _START_LIMIT_S + 2 * spec.timeout_s * len(spec.subjects)
        command = [sys.executable, "-m", module, "--spec", str(spec_path), "--out", str(out_path)]
        try:
            returncode = await _run(command, spec.threads, log_path, limit_s)
        except TimeoutError:
            return _failed(f"the benchmark did not end within {limit_s:g} s", log_path)
        if returncode != 0:
            return _failed(f"the benchmark {describe_exit(returncode)}", log_path)
        try:
            results = _read_results(json.loads(out_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as e:
            return _failed(f"the benchmark left no usable result ({e!r})", log_path)
    return WorkResult(lease_pb2.LEASE_OUTCOME_DONE, benchmark=results)


async def _run(command: list[str], threads: int, log_path: Path, limit_s: float) -> int:
    log_path.parent.mkdir(parents=True, exist_ok=True)
    count = str(threads)
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "TVM_NUM_THREADS": count, "OMP_NUM_THREADS": count},
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(limit_s):
            return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _job_spec(spec: BenchmarkSpec, blobs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    def named(digest: str, name: str) -> str:
        path = folder / name
        try:
            path.hardlink_to(blobs[digest])
        except OSError:  # it lies on another file system
            shutil.copyfile(blobs[digest], path)
        return str(path)

    return {
        "subjects": [
            {
                "name": subject.name,
                "kind": subject.kind,
                "path": named(subject.digest, f"subject{index}{_SUFFIX_BY_KIND[subject.kind]}"),
            }
            for index, subject in enumerate(spec.subjects)
        ],
        "inputs": named(spec.inputs_digest, "inputs.npz"),
        "outputs": named(spec.outputs_digest, "outputs.npz"),
        "threads": spec.threads,
        "repeat": spec.repeat,
        "min_repeat_ms": spec.min_repeat_ms,
        "timeout_s": spec.timeout_s,
        "per_op": spec.per_op,
    }


def _read_results(raw: Mapping[str, Any]) -> tuple[BenchmarkResult, ...]:
    return tuple(
        BenchmarkResult(
            name=str(each["name"]),
            samples_s=tuple(float(sample) for sample in each["samples_s"]),
            max_abs_err=None if each["max_abs_err"] is None else float(each["max_abs_err"]),
            error=str(each["error"] or ""),
            ops=tuple(
                OpTime(str(op["name"]), str(op["op"]), int(op["calls"]), float(op["seconds"]))
                for op in each["ops"]
            ),
            profiled_s=tuple(float(sample) for sample in each["profiled_s"]),
            between_s=tuple(float(sample) for sample in each["between_s"]),
        )
        for each in raw["results"]
    )


def _failed(what: str, log_path: Path) -> WorkResult:
    tail = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return WorkResult(lease_pb2.LEASE_OUTCOME_FAILED, error=f"{what}; its log ends: {tail or '-'}")
