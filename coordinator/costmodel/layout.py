"""Where in TVM's per-store features the values lie that the model relates to the hardware.

TVM's ``PerStoreFeature`` gives 172 values a store, those that are not flags already as
``sign(x) * log2(|x| + 1)``: 57 of computation and loops, 18 for each of the 5 buffers that are
touched most, 10 of the arithmetic-intensity curve, 4 of the allocation, 3 of the loop nest, 8
workload tags.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_VECTOR_LENGTH = 18
_PARALLEL_EXTENT = 39
_ARITHMETIC_INTENSITY = 156
"""The curve's last point: the whole loop nest's operations per unique byte."""
_ALLOCATED_BYTES = 157
_FIRST_BUFFER = 57
_VALUES_PER_BUFFER = 18
_UNIQUE_BYTES = 4
"""Offset inside a buffer's values, like the next one."""
_REUSE_DISTANCE_BYTES = 11
_BUFFERS_RELATED = 3
"""Of the five; most stores touch three or fewer."""
_FLOAT32_BITS = 32


@dataclass(frozen=True)
class Ratio:
    """``program / product(hardware ** power)``, computed as a difference of logarithms."""

    program: int
    """Index among a store's values."""
    hardware: tuple[tuple[str, float], ...]
    """Names of hardware features, each with the power it is divided by."""
    offset: float = 0.0
    """Added to the logarithm, for units."""


def _ratios() -> tuple[Ratio, ...]:
    ratios = [
        Ratio(_VECTOR_LENGTH, (("target_simd_bits", 1.0),), math.log2(_FLOAT32_BITS)),
        Ratio(_PARALLEL_EXTENT, (("target_cores", 1.0),)),
        Ratio(
            _ARITHMETIC_INTENSITY,
            (("gflops_all_cores", 1.0), ("bandwidth_memory_all_cores_gbs", -1.0)),
        ),
    ]
    sizes = [_ALLOCATED_BYTES]
    for buffer in range(_BUFFERS_RELATED):
        start = _FIRST_BUFFER + buffer * _VALUES_PER_BUFFER
        sizes += [start + _UNIQUE_BYTES, start + _REUSE_DISTANCE_BYTES]
    for cache in ("l1d_bytes", "l2_bytes", "l3_bytes"):
        ratios += [Ratio(size, ((cache, 1.0),)) for size in sizes]
    return tuple(ratios)


RATIOS = _ratios()
"""Does the vector fill a register, the loop all cores, the data a cache; what is the bottleneck."""
