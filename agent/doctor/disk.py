"""Is there room for what the agent must not lose, and is it quickly safe?"""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from agent.doctor.finding import Finding, Status, ok
from agent.doctor.machine import nearest

GIB = 2**30
DISK_WARN_BYTES = 3 * GIB
"""An agent keeps up to 2 GiB of blobs, half a GiB of results that are not sent yet, and logs."""
DISK_BAD_BYTES = GIB // 2

WRITE_WARN_S = 0.1
"""A round's trials are written one by one; a worn SD card takes this long for each."""
WRITE_BAD_S = 1.0
_WRITE_BYTES = 64 * 2**10
"""About a trial with its features."""
_WRITES = 3


@dataclass(frozen=True)
class DiskUse:
    """What a file system showed."""

    free_bytes: int
    write_s: float | None
    """Seconds to write a trial's worth to the medium; ``None`` if it cannot be written to."""


def probe_disk(folder: Path) -> DiskUse:
    """Measure the file system of a folder by writing there for real; leaves nothing behind."""
    folder = nearest(folder)
    free = shutil.disk_usage(folder).free
    try:
        return DiskUse(free, statistics.median(_timed_write(folder) for _ in range(_WRITES)))
    except OSError:
        return DiskUse(free, None)


def check_disk(home: Path, use: DiskUse) -> Finding:
    """Tell whether the agent's folder has room, and how long a safe write takes."""
    name = "disk"
    free = f"{use.free_bytes / GIB:.1f} GiB free"
    if use.write_s is None:
        return Finding(
            name,
            Status.BAD,
            f"{free}, but nothing can be written",
            "the agent cannot keep what it measures until it is sent",
            "See permissions below.",
        )
    seen = f"{free}, a safe write takes {use.write_s * 1e3:.1f} ms"
    if use.free_bytes < DISK_WARN_BYTES:
        return Finding(
            name,
            Status.BAD if use.free_bytes < DISK_BAD_BYTES else Status.WARN,
            seen,
            "models, workloads and results that are not sent yet may not fit",
            "Make room, or choose a folder elsewhere with --home.",
            f"df -h {home}",
        )
    if use.write_s >= WRITE_WARN_S:
        return Finding(
            name,
            Status.BAD if use.write_s >= WRITE_BAD_S else Status.WARN,
            seen,
            "every trial is safe on disk before it is sent; so slow a disk holds measuring up",
            "Choose a folder on a faster disk with --home.",
        )
    return ok(name, seen)


def _timed_write(folder: Path) -> float:
    data = os.urandom(_WRITE_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return time.perf_counter() - began
