"""A whole schedule as one row of numbers, beside the rows of its program's buffer stores.

TVM's features of a buffer store tell much of a lowered program, but not into which factors each
loop was split. This row does, for a tenth of the time: counts of the kinds of steps, then the
numbers of the first steps of each kind (:mod:`tunefleet.schedules.step` says which).
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence

from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.schedules.step import Step
from tunefleet.schedules.trace import trace_steps

_SHOWN: dict[str, tuple[int, tuple[int, ...]]] = {
    "split": (10, (0, 2, 3, 4, 5, 6, 7)),
    "fuse": (3, (0, 2, 3)),
    "parallel": (2, (0, 2)),
    "vectorize": (4, (0, 1, 2)),
    "unroll": (2, (0, 2)),
    "bind": (6, (0, 2)),
    "auto_unroll": (3, (0, 3)),
    "compute_at": (3, (0, 1, 2)),
    "reverse_compute_at": (4, (0, 1, 2)),
    "cache_read": (2, (0,)),
    "cache_write": (2, (0,)),
    "rfactor": (2, (0, 2, 3)),
    "decompose_reduction": (2, (0, 1, 2)),
    "tensorize": (1, (0, 2)),
}
"""Of each kind, how many steps are shown, and which of their numbers. A convolution of seven loops
splits seven; a fused epilogue adds a few."""

_COUNTED = (*_SHOWN, "compute_inline", "other")
"""Kinds that are counted, shown or not; ``other`` is every kind that is not named here."""


def _layout() -> dict[str, int]:
    starts, place = {}, len(_COUNTED)
    for kind, (steps, numbers) in _SHOWN.items():
        starts[kind] = place
        place += steps * len(numbers)
    if place > PROGRAM_FEATURES_PER_STORE:
        raise AssertionError(f"{place} values do not fit into a row")
    return starts


_START = _layout()
_COUNT_PLACE = {kind: place for place, kind in enumerate(_COUNTED)}


def schedule_row(trace: str) -> bytes:
    """Describe a schedule.

    Args:
        trace: as JSON, as trials store it; a program as it was given has an empty one.

    Returns:
        ``PROGRAM_FEATURES_PER_STORE`` little-endian float32 values, all finite: numbers x as
        ``sign(x) * log2(1 + |x|)``, as TVM's features are. What there is none of is 0.

    Raises:
        ValueError: it is no trace.
    """
    return row_of_steps(trace_steps(trace))


def row_of_steps(steps: Sequence[Step]) -> bytes:
    """Describe a schedule by its steps; see :func:`schedule_row`."""
    values = array("f", bytes(4 * PROGRAM_FEATURES_PER_STORE))
    seen: Counter[str] = Counter()
    for step in steps:
        kind = step.kind if step.kind in _COUNT_PLACE else "other"
        index = seen[kind]
        seen[kind] += 1
        most, numbers = _SHOWN.get(kind, (0, ()))
        if index < most:
            place = _START[kind] + index * len(numbers)
            for offset, number in enumerate(numbers):
                if number < len(step.numbers):
                    values[place + offset] = _logarithm(step.numbers[number])
    for kind, count in seen.items():
        values[_COUNT_PLACE[kind]] = _logarithm(count)
    if _BIG_ENDIAN:
        values.byteswap()
    return values.tobytes()


_BIG_ENDIAN = array("H", [1]).tobytes() == b"\x00\x01"


def _logarithm(number: float) -> float:
    return math.copysign(math.log2(1.0 + abs(number)), number)
