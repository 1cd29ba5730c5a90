"""Which micro-benchmarks describe a device, and on buffers of which size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.profile.kernels import FLAG_STRIDE, FLOAT_BYTES, Kernels
from agent.profile.timing import Figure
from tunefleet.devices import DeviceProfile

_MEMORY_BUFFER_MIN_BYTES = 64 * 2**20
"""Where no cache size is known: beyond the last level of nearly all CPUs without a known one."""

_MEMORY_BUFFER_MAX_BYTES = 2**30
"""Longer buffers would only make the first touch slower."""


def buffer_sizes(profile: DeviceProfile) -> dict[str, int]:
    """Choose the bytes to read for each level of the memory hierarchy.

    A cache's buffer is half its size, so that it fits beside everything else; memory's is four
    times the last level's, at most an eighth of the memory.

    Returns:
        Bytes by ``l1``, ``l2``, ``l3``, ``memory``; without the levels whose size is unknown or
        that no buffer would fit without fitting the level below too.
    """
    sizes: dict[str, int] = {}
    below = 0
    for level, size in (
        ("l1", profile.l1d_bytes),
        ("l2", profile.l2_bytes),
        ("l3", profile.l3_bytes),
    ):
        if size is not None and size // 2 > below:
            sizes[level] = size // 2
            below = size
    available = (profile.memory_bytes or 8 * _MEMORY_BUFFER_MIN_BYTES) // 8
    wanted = max(_MEMORY_BUFFER_MIN_BYTES, 4 * below)
    memory = min(wanted, available, _MEMORY_BUFFER_MAX_BYTES)
    if memory >= 2 * below:
        sizes["memory"] = memory
    return sizes


def build_figures(kernels: Kernels, sizes: Mapping[str, int]) -> dict[str, Figure]:
    """Allocate the buffers and bind the kernels to them.

    Args:
        kernels: the compiled kernels.
        sizes: what :func:`buffer_sizes` chose.

    Returns:
        Figures by the names of :class:`tunefleet.devices.MeasuredProfile`'s fields.
    """
    figures = {
        "gflops_single_core": _gflops(kernels, 1),
        "gflops_all_cores": _gflops(kernels, kernels.threads),
        "parallel_launch_us": _launch(kernels),
    }
    for level, size in sizes.items():
        figures[f"bandwidth_{level}_gbs"] = _bandwidth(kernels, 1, size)
    if "memory" in sizes:
        figures["bandwidth_memory_all_cores_gbs"] = _bandwidth(
            kernels, kernels.threads, sizes["memory"]
        )
    return figures


def _gflops(kernels: Kernels, threads: int) -> Figure:
    # With a factor of 0 the sums stay at 1: no overflow and no denormals, which would be slow.
    factor = _filled(kernels.lanes, 0.0)
    sums = _filled(threads * kernels.width(), 1.0)
    operations = 2 * threads * kernels.width()
    return Figure(
        run=lambda rounds: kernels.multiply_add(threads, factor, sums, rounds),
        threads=threads,
        value=lambda seconds: operations / seconds / 1e9,
    )


def _bandwidth(kernels: Kernels, threads: int, size_bytes: int) -> Figure:
    multiple = threads * kernels.width()
    count = max(1, size_bytes // FLOAT_BYTES // multiple) * multiple
    values, sums = _empty(count), _filled(multiple, 0.0)
    kernels.fill(threads, values, 1.0)
    return Figure(
        run=lambda rounds: kernels.read(threads, values, sums, rounds),
        threads=threads,
        value=lambda seconds: count * FLOAT_BYTES / seconds / 1e9,
    )


def _launch(kernels: Kernels) -> Figure:
    flags = _filled(kernels.threads * FLAG_STRIDE, 0.0)
    return Figure(
        run=lambda rounds: kernels.launch(flags, rounds),
        threads=1,  # the others may sleep between two launches
        value=lambda seconds: seconds * 1e6,
    )


def _empty(count: int) -> Any:
    import tvm  # noqa: PLC0415 (only worker processes may pay for it)

    return tvm.runtime.empty((count,), "float32")


def _filled(count: int, value: float) -> Any:
    import numpy as np  # noqa: PLC0415
    import tvm  # noqa: PLC0415

    return tvm.runtime.tensor(np.full(count, value, dtype="float32"))
