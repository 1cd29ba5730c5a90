"""An agent's measuring, as the measuring bench drives it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.measure.client import Measurer
from scripts.benches.measure_candidates import BenchTask
from scripts.benches.measure_rows import Measured, Row
from tunefleet.leases import BASELINE_TRACE, MeasurePolicy

STOCK_SAMPLES = MeasurePolicy(
    number=3, repeat=1, min_repeat_ms=100, max_repeat=1, max_attempts=1, run_timeout_s=30.0
)
"""The samples that MetaSchedule takes by default, each candidate once."""
STOPPING_RULE = MeasurePolicy()
"""What a campaign measures with."""
REFERENCE = MeasurePolicy(
    number=1, repeat=30, min_repeat_ms=20, max_repeat=30, max_attempts=3, run_timeout_s=60.0
)
"""Long enough that chance no longer orders the candidates near the top."""

_NEIGHBOUR = """
import numpy
a = numpy.random.rand(300, 300).astype("float32")
while True:
    a @ a
"""
_SETTLE_S = 1.0


def measure_ours(
    tasks: Sequence[BenchTask], target: str, policy: MeasurePolicy, folder: Path
) -> list[Measured]:
    """Measure candidates with a worker that is warm, as in the midst of a campaign.

    Args:
        tasks: what to measure, one after another.
        target: canonical target.
        policy: how each is timed.
        folder: for the worker's log and its memory of the reference kernel.

    Returns:
        One result a task. Starting the worker is not counted.
    """
    return asyncio.run(_measure(tasks, target, policy, folder))


async def _measure(
    tasks: Sequence[BenchTask], target: str, policy: MeasurePolicy, folder: Path
) -> list[Measured]:
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    async with Measurer(folder, threads=len(os.sched_getaffinity(0))) as measurer:
        warm = [("warm-up", BASELINE_TRACE)]
        async for _ in measurer.measure(tasks[0].workload_path, target, warm, policy):
            pass
        for task in tasks:
            began = time.monotonic()
            rows: dict[str, Row] = {}
            build_cpu_s = kernel_s = 0.0
            async for done in measurer.measure(task.workload_path, target, task.traces, policy):
                rows[done.candidate] = Row(done.verdict.value, done.samples_s)
                build_cpu_s += done.build_cpu_s or 0.0
                kernel_s += done.kernel_s or 0.0
            results.append(Measured(rows, time.monotonic() - began, build_cpu_s, kernel_s))
    return results


@contextmanager
def busy_neighbour() -> Iterator[None]:
    """Keep the last core busy with matrix products of another process."""
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR], env=env)
    try:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        time.sleep(_SETTLE_S)
        yield
    finally:
        process.kill()
        process.wait()
