"""Bounds for jobs that read what strangers wrote."""

from __future__ import annotations

import resource

MEMORY_BYTES = 8 * 2**30
"""More than any dataset of ours needs; what unpacks to more ends its own job and nothing else."""


def limit(cpu_s: int | None = None) -> None:
    """Bound this process's memory and, where given, its processor time in seconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bounds = [n for n in (soft, hard, MEMORY_BYTES) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    if cpu_s is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        bounds = [n for n in (hard, cpu_s) if n != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_CPU, (min(bounds), hard))
