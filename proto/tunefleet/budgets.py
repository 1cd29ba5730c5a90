"""When tuning has gone on for long enough."""

from __future__ import annotations

DEFAULT_MIN_GAIN = 0.001
"""Share of the network's latency that the next round must be expected to save: 0.1 %, which is
below what end-to-end measurements can tell apart."""
