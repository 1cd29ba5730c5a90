from __future__ import annotations

import subprocess
import sys
import time

import psutil

PATIENCE_S = 60.0
_WORKER = """
import sys, time
from agent.measure.sandbox import Sandbox
from tunefleet.leases import MeasurePolicy

sandbox = Sandbox(lambda channel: time.sleep(600), MeasurePolicy(), 1)
if sys.argv[1] == "paused":
    sandbox.pause()
print(sandbox.pid, flush=True)
time.sleep(600)
"""


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def left_behind(state: str) -> bool:
    """Kill a worker that has just begun a candidate; returns whether that outlives it."""
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, state], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    child = int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    worker.stdout.close()
    until = time.monotonic() + PATIENCE_S
    while not has_ended(child) and time.monotonic() < until:
        time.sleep(0.01)
    ended = has_ended(child)
    if not ended:
        psutil.Process(child).kill()
    return not ended


def test_a_candidate_dies_with_its_worker() -> None:
    assert not left_behind("running")


def test_a_candidate_that_is_paused_at_once_dies_with_its_worker() -> None:
    assert not left_behind("paused")
