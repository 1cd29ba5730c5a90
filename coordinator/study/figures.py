"""Figures with intervals, as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

from coordinator.study.evaluation import Interval


def figures(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """Return intervals as JSON values; a number that does not exist is null."""
    return {
        name: {key: None if math.isnan(v) else v for key, v in asdict(interval).items()}
        for name, interval in intervals.items()
    }
