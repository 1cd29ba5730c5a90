"""Puts times and sizes into words, the same way everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def latency(seconds: float | None) -> str:
    """Write a latency with a unit that suits it, or a dash where there is none."""
    if seconds is None:
        return "-"
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def factor(value: float | None) -> str:
    """Write a speedup such as ``3.4x``, or a dash where there is none."""
    return "-" if value is None else f"{_three_digits(value)}x"


def duration(seconds: float | None) -> str:
    """Write a span of time such as ``2 h 05 min``, or a dash where there is none."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """Write how long ago something was, such as ``2 min ago``."""
    age = ((now or datetime.now(UTC)) - moment).total_seconds()
    if moment.timestamp() <= 0:
        return "never"
    if age < 5:
        return "just now"
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if age < limit:
            return f"{age // size:.0f} {unit} ago"
    days = age // 86400
    return f"{days:.0f} day{'s' if days > 1 else ''} ago"


def size(count: int | None) -> str:
    """Write a number of bytes such as ``1.5 MiB``, or ``unknown``."""
    if count is None:
        return "unknown"
    value = float(count)
    for unit in _BYTE_UNITS:
        if value < 1024 or unit == _BYTE_UNITS[-1]:
            break
        value /= 1024
    return f"{value:.4g} {unit}"


def short_target(target: str) -> str:
    """Name a canonical target in a few characters, such as ``llvm znver4, 2 threads``."""
    try:
        options = json.loads(target)
    except ValueError:
        return target
    if not isinstance(options, dict):
        return target
    words = [str(options.get(key)) for key in ("kind", "mcpu") if options.get(key)]
    cores = options.get("num-cores")
    threads = f", {cores} thread{'' if cores == 1 else 's'}" if cores else ""
    return " ".join(words) + threads


def _three_digits(value: float) -> str:
    """Round to three significant digits, without exponents."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def unusable_lines(unusable: Mapping[str, Any]) -> list[str]:
    """Say what of a dataset could not be used, line by line; nothing where all could.

    Args:
        unusable: ``count``, and ``named`` with ``where`` and ``why`` of the first of them.
    """
    count, named = unusable["count"], unusable["named"]
    if not count:
        return []
    return [
        f"{count:,} of what was read could not be used:",
        *(f"  {one['where']}: {one['why']}" for one in named),
        *([f"  and {count - len(named):,} more"] if count > len(named) else []),
    ]
