"""Shifts the clock of every Python process that finds this folder first on its path.

As on a board without a battery, the time of day is wrong and time's passing is right.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

_OFFSET_S = float(os.environ.get("TUNEFLEET_CHAOS_CLOCK_OFFSET_S") or 0.0)


def _shifted(clock: Callable[[], float]) -> Callable[[], float]:
    def read() -> float:
        now = clock()
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        # gRPC makes deadlines of it, which its core compares with the clock that is not shifted.
        return now if caller.partition(".")[0] == "grpc" else now + _OFFSET_S

    return read


if _OFFSET_S:
    time.time = _shifted(time.time)
    _read_ns = time.time_ns
    time.time_ns = lambda: _read_ns() + int(_OFFSET_S * 1e9)
