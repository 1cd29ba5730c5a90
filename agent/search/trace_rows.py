"""Rows of numbers for schedules that TVM holds, without writing their traces as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.search.evolution import FloatArray
from agent.tvm_startup import import_tvm
from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.schedules.row import row_of_steps, schedule_row
from tunefleet.schedules.trace import parsed_trace_steps

tvm = import_tvm()

from tvm.s_tir.schedule import _ffi_api as schedule_ffi  # noqa: E402 (after our import of TVM)
from tvm_ffi import Array, Map, structural_hash  # noqa: E402

_PARTS_KEPT = 2_000
"""Instructions and decisions remembered: about a megabyte. A convolution's first 200 random
schedules have 550 different ones."""


class TraceRows:
    """Describes the schedules of one workload; may be used by several threads at once.

    Schedules of one workload share most instructions. Every value that crosses from TVM costs
    about a microsecond, so an instruction is fetched once and known by its hash from then on, which
    makes a row four times cheaper.
    """

    def __init__(self) -> None:
        self._parts: dict[int, Any] = {}

    def row(self, trace: Any) -> FloatArray:
        """Describe a schedule.

        Args:
            trace: TVM's, postprocessing included.

        Returns:
            float32 [1, 172]: exactly what :func:`tunefleet.schedules.row.schedule_row` gives for
            the trace as JSON.

        Raises:
            ValueError: it is none whose steps can be followed.
        """
        instructions, decisions = schedule_ffi.TraceAsJSON(trace, False)
        steps = parsed_trace_steps(
            [self._part(one) for one in instructions], [self._part(one) for one in decisions]
        )
        return _as_array(row_of_steps(steps))

    def _part(self, part: Any) -> Any:
        key = int(structural_hash(part))
        plain = self._parts.get(key)
        if plain is None:
            if len(self._parts) >= _PARTS_KEPT:
                self._parts.clear()
            plain = self._parts[key] = _plain(part)
        return plain


def row_of_text(trace: str) -> FloatArray:
    """Describe a schedule by its trace as JSON: float32 [1, 172]. Raises ValueError."""
    return _as_array(schedule_row(trace))


def _as_array(row: bytes) -> FloatArray:
    return np.frombuffer(row, "<f4").reshape(1, PROGRAM_FEATURES_PER_STORE)


def _plain(value: Any) -> Any:
    """Return what JSON would hold for a value of a trace."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Array):
        return [_plain(one) for one in value]
    if isinstance(value, Map):
        return {key: _plain(one) for key, one in value.items()}
    try:
        return value.value  # an immediate
    except AttributeError as e:
        raise ValueError(f"a trace with a {type(value).__name__} cannot be read") from e
