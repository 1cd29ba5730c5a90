"""Bounds of processes that read what strangers wrote: if they fail, nothing else does."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

from tunefleet.errors import Reason

DATASET_MEMORY_BYTES = 8 * 2**30
"""More than any dataset of ours needs; what unpacks to more ends its own job and nothing else."""

MODEL_MEMORY_BYTES = 16 * 2**30
"""Importing a network takes some twenty times its weights, of which large ones have 600 MB."""

FILE_BYTES = 32 * 2**30
"""Largest file that such a process may write; a network's weights as text take some gigabytes."""

READ = {Reason.MODEL_INVALID: "the model", Reason.DATASET_INVALID: "the dataset"}
"""What a job has read whose failure is a reason to refuse it."""

_CPU_SPARE_S = 10
_PR_SET_NO_NEW_PRIVS = 38


def confine(
    *, memory_bytes: int | None = None, cpu_s: int | None = None, file_bytes: int = FILE_BYTES
) -> None:
    """Bound this process and what it starts, for good.

    Args:
        memory_bytes: that it may allocate, at the most what the machine has, or what it was
            allowed before. Not its address space, of which torch and TVM reserve far more than
            they touch.
        cpu_s: processor time in seconds, after which it is ended by SIGXCPU.
        file_bytes: size of a file that it writes.
    """
    physical = _physical_bytes()
    _lower(resource.RLIMIT_DATA, min(memory_bytes or physical, physical))
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    # An image of a broken process is of no use to anybody, and holds what others sent.
    _lower(resource.RLIMIT_CORE, 0)
    if cpu_s is not None:
        _lower(resource.RLIMIT_CPU, cpu_s)
    if sys.platform == "linux":
        # Programs with rights of their own, such as su, get none when this process starts them.
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def memory_limit_bytes() -> int:
    """Return how much this process may allocate, in bytes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return _physical_bytes() if soft == resource.RLIM_INFINITY else soft


def _lower(what: int, most: int) -> None:
    soft, hard = resource.getrlimit(what)
    known = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    soft = min([most, *known])
    # Of processor time some more until the hard limit, so that the signal comes which says why.
    spare = _CPU_SPARE_S if what == resource.RLIMIT_CPU else 0
    top = soft + spare if hard == resource.RLIM_INFINITY else min(soft + spare, hard)
    resource.setrlimit(what, (soft, top))


def _physical_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
