"""What candidates are run with: sets of inputs in turn, so that they lie where a network's do.

Run again and again on its own data, a program finds all of it in the caches. In a network it finds
little: the layers between two of its calls have evicted its weights, and most of what the layer
before wrote: the late convolutions of a resnet50 take up to twice as long in it as on warm data. So
copies of the inputs are used in turn, together more than the caches hold. The output stays where it
is: networks use the same memory for one layer's after another.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.profile.sysfs import read_caches

_TIMES_THE_CACHE = 1.5
"""Caches do not evict in the order of use exactly."""
LEAST_BYTES = 2**18
"""Smaller inputs cost little wherever they lie, and would take hundreds of copies."""
_FALLBACK_CACHE_BYTES = 8 * 2**20
_MOST_CACHE_BYTES = 64 * 2**20
"""Servers have more, but no process of a few cores has it for itself."""


def input_sets(arguments: Sequence[Any], cache_bytes: int | None = None) -> list[list[Any]]:
    """Return sets of arguments to be used in turn; they share the output.

    Args:
        arguments: TVM's tensors, all of a program's; the last is what it writes.
        cache_bytes: of the last cache; this machine's for ``None``.

    Returns:
        At least one set; the first has the arguments themselves.
    """
    *inputs, output = arguments
    size = sum(_bytes(tensor) for tensor in inputs)
    if size < LEAST_BYTES:
        return [list(arguments)]
    cache = _cache_bytes() if cache_bytes is None else cache_bytes
    copies = math.ceil(_TIMES_THE_CACHE * min(cache, _MOST_CACHE_BYTES) / size)
    others = [[*(t.copyto(t.device) for t in inputs), output] for _ in range(copies)]
    return [list(arguments), *others]


def _bytes(tensor: Any) -> int:
    return math.prod(int(n) for n in tensor.shape) * np.dtype(str(tensor.dtype)).itemsize


def _cache_bytes() -> int:
    caches = read_caches(Path("/sys/devices/system/cpu"), min(os.sched_getaffinity(0)))
    return caches.l3_bytes or caches.l2_bytes or _FALLBACK_CACHE_BYTES
