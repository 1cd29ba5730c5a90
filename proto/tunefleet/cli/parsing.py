"""Reads durations and shapes as people type them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunefleet.errors import Reason, TuneFleetError

_UNIT_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smh])+")
_SHARE = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<percent>%?)")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)([smh])")


def parse_duration(text: str) -> float:
    """Return the seconds of ``90s``, ``10m``, ``2h`` or ``1h30m``.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    compact = text.replace(" ", "").lower()
    matched = _DURATION.fullmatch(compact)
    seconds = sum(float(n) * _UNIT_S[unit] for n, unit in _DURATION_PART.findall(compact))
    if matched is None or seconds <= 0:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{text!r} is no time",
            hint="Give a number with a unit, such as 90s, 10m or 2h.",
        )
    return seconds


def parse_share(text: str) -> float:
    """Return the share, from 0 to below 1, that ``0.1%`` or ``0.001`` stands for.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    matched = _SHARE.fullmatch(text.replace(" ", ""))
    share = float(matched["number"]) / (100 if matched["percent"] else 1) if matched else 1.0
    if share >= 1:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{text!r} is no share below 1",
            hint="Give a percentage such as 0.1%, or the same as a number, 0.001.",
        )
    return share


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the dimensions by input of texts such as ``data=1,3,224,224``.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, dims = text.rpartition("=")
        sizes = [size.strip() for size in dims.split(",")]
        if not name or not all(size.isdecimal() and int(size) > 0 for size in sizes):
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{text!r} is no shape",
                hint="Give the input's name and its sizes, such as data=1,3,224,224.",
            )
        if name in shapes:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"the input {name!r} is given two shapes",
                hint="Give one --shape for each input.",
            )
        shapes[name] = tuple(int(size) for size in sizes)
    return shapes
