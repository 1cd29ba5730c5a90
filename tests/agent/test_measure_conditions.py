from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from profile_machines import write_tree

from agent.measure.conditions import ForeignLoad, read_conditions, waited_s

_SPIN = [sys.executable, "-c", "while True: pass"]


@contextmanager
def _neighbour(core: int | None = None) -> Iterator[psutil.Process]:
    """Run something that computes without end, on one core if it is named."""
    process = subprocess.Popen(_SPIN)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def _await_cpu_seconds(of: psutil.Process, seconds: float) -> None:
    while of.cpu_times().user < seconds:
        time.sleep(0.01)


def test_work_of_another_process_is_foreign() -> None:
    load = ForeignLoad()
    began = time.monotonic()
    with _neighbour() as other:
        _await_cpu_seconds(other, 0.5)
        now = load.read()
        elapsed = time.monotonic() - began
    assert now is not None
    # Half a second of its time, less what the kernel's ticks leave uncertain.
    assert now.foreign_cores * elapsed > 0.3


def test_time_the_hypervisor_takes_is_told_apart(tmp_path: Path) -> None:
    line = "cpu0 0 0 0 1000 0 0 0 {steal} 0 0"
    load = ForeignLoad(write_tree(tmp_path, {"proc/stat": line.format(steal=0)}))
    write_tree(tmp_path, {"proc/stat": line.format(steal=10**9)})
    now = load.read()
    assert now is not None
    assert now.steal_cores > 1


def test_waiting_for_a_core_is_noticed() -> None:
    core = min(os.sched_getaffinity(0))
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        with _neighbour(core) as other:
            _await_cpu_seconds(other, 0.05)
            before = waited_s()
            spun = time.process_time() + 0.2
            while time.process_time() < spun:
                pass
            waited = waited_s() - before
    finally:
        os.sched_setaffinity(0, allowed)
    # It had to share the core for 0.2 s of its own; a scheduler gives the other about as much.
    assert waited > 0.02


def test_conditions_are_plausible_or_missing() -> None:
    conditions = read_conditions()
    assert conditions.clock_mhz is None or 100 < conditions.clock_mhz < 10_000
    assert conditions.temperature_c is None or -40 < conditions.temperature_c < 150
    assert conditions.load_average is not None
    assert conditions.load_average >= 0
    assert conditions.memory_available_bytes is not None
    assert conditions.memory_available_bytes > 2**20
