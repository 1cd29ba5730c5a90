"""What every benchmark needs: figures with intervals, the machine's description, processes."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import psutil

Figure = dict[str, float]
T = TypeVar("T")


def figure(values: Sequence[float]) -> Figure:
    """Return the median of repeats, with the lowest and the highest where there are several."""
    made = {"value": statistics.median(values)}
    if len(values) > 1:
        made |= {"low": min(values), "high": max(values)}
    return {name: round(value, 4) for name, value in made.items()}


def machine() -> dict[str, object]:
    """Describe the machine a figure was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "kernel": platform.release(),
    }


def tree_rss_mb(pid: int) -> float:
    """Return the resident memory of a process and everything it started, in MB (1e6 bytes)."""
    process = psutil.Process(pid)
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def await_value(what: str, read: Callable[[], T | None], timeout_s: float) -> T:
    """Poll until there is a value; raises TimeoutError naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = read()
        if value is not None:
            return value
        time.sleep(0.01)
    raise TimeoutError(f"{what} did not come within {timeout_s} s")


def note(text: str) -> None:
    """Show progress on stderr."""
    print(text, file=sys.stderr, flush=True)
