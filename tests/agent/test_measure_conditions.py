from __future__ import annotations

import subprocess
import sys
import time

from agent.measure.conditions import ForeignLoad, read_conditions


def _wait_cpu_seconds(of: subprocess.Popen[bytes], seconds: float) -> None:
    import psutil

    process = psutil.Process(of.pid)
    while process.cpu_times().user < seconds:
        time.sleep(0.01)


def test_work_of_another_process_is_foreign() -> None:
    load = ForeignLoad()
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        _wait_cpu_seconds(other, 0.5)
        cores = load.cores()
        elapsed = time.monotonic() - began
        other.kill()
    assert cores is not None
    # Half a second of its time, less what the kernel's ticks leave uncertain.
    assert cores * elapsed > 0.3


def test_conditions_are_plausible_or_missing() -> None:
    conditions = read_conditions()
    assert conditions.clock_mhz is None or 100 < conditions.clock_mhz < 10_000
    assert conditions.temperature_c is None or -40 < conditions.temperature_c < 150
    assert conditions.load_average is not None
    assert conditions.load_average >= 0
    assert conditions.memory_available_bytes is not None
    assert conditions.memory_available_bytes > 2**20
