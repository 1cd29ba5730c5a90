"""Shifts the clock of every Python process that finds this folder first on its path.

As on a board without a battery, the time of day is wrong and time's passing is right.
"""

from __future__ import annotations

import os
import time

_OFFSET_S = float(os.environ.get("TUNEFLEET_CHAOS_CLOCK_OFFSET_S") or 0.0)

if _OFFSET_S:
    _true_time, _true_time_ns = time.time, time.time_ns
    time.time = lambda: _true_time() + _OFFSET_S
    time.time_ns = lambda: _true_time_ns() + int(_OFFSET_S * 1e9)
