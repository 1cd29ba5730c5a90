"""Whether a machine lowers its clock for heat or power, where its kernel tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_PI_FLAGS = (
    (0x1, "the supply voltage is too low"),
    (0x2, "the firmware caps the clock"),
    (0x4, "the firmware throttles the processor"),
    (0x8, "the firmware's soft temperature limit is reached"),
)
"""Bits that say "now"; those 16 places higher say "since boot" and are of no use here."""
_PASSIVE_TRIPS = {"passive", "hot", "critical"}
"""Kinds of temperatures at which a kernel slows the machine down; ``active`` ones start a fan."""


@dataclass(frozen=True)
class ThrottleState:
    """What the machine tells at one moment."""

    events: int | None = None
    """Throttling events counted since boot, over all cores; ``None`` where none are counted."""
    reasons: tuple[str, ...] = ()
    """What slows the machine down now, in words."""
    told: bool = False
    """Whether this machine tells anything at all."""


class ThrottleSensor:
    """Finds once what there is to read, and reads it as often as asked."""

    def __init__(self, root: Path = Path("/")) -> None:
        """Look for what the machine offers.

        Args:
            root: folder with ``sys``.
        """
        cpu = root / "sys/devices/system/cpu"
        self._counters = sorted(cpu.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
        self._pi = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
        self._trips = list(_slowing_trips(root / "sys/class/thermal"))
        self._clocks = list(_clock_limits(cpu))

    def read(self) -> ThrottleState:
        """Read all; what cannot be read is left out."""
        counts = [count for path in self._counters if (count := _number(path)) is not None]
        flags = _number(self._pi, base=16)
        reasons = [text for bit, text in _PI_FLAGS if flags is not None and flags & bit]
        for zone, temperature, limit in self._trips:
            now = _number(temperature)
            if now is not None and now >= limit:
                reasons.append(f"{zone} has {now / 1000:g} degrees, its limit is {limit / 1000:g}")
        for name, allowed, highest in self._clocks:
            now = _number(allowed)
            if now is not None and now < highest:
                reasons.append(f"{name} may run at {now / 1000:g} of {highest / 1000:g} MHz")
        return ThrottleState(
            sum(counts) if counts else None,
            tuple(reasons),
            bool(counts) or flags is not None or bool(self._trips),
        )


def why_throttled(before: ThrottleState, after: ThrottleState) -> str:
    """Say what slowed the machine down between two readings; empty if nothing is known of."""
    if before.events is not None and after.events is not None and after.events > before.events:
        return f"the processor counted {after.events - before.events} throttling events"
    return "; ".join(dict.fromkeys((*before.reasons, *after.reasons)))


def _slowing_trips(thermal: Path) -> Iterable[tuple[str, Path, int]]:
    for zone in sorted(thermal.glob("thermal_zone[0-9]*")):
        limits = [
            limit
            for kind in zone.glob("trip_point_[0-9]*_type")
            if _text(kind) in _PASSIVE_TRIPS
            and (limit := _number(kind.with_name(kind.name.replace("_type", "_temp"))))
        ]
        # A sensor without a driver behind it reports trips of zero or below.
        if limits and min(limits) > 0:
            yield _text(zone / "type") or zone.name, zone / "temp", min(limits)


def _clock_limits(cpu: Path) -> Iterable[tuple[str, Path, int]]:
    """Find where cooling shows: it lowers what a policy allows while the machine runs."""
    for policy in sorted((cpu / "cpufreq").glob("policy[0-9]*")):
        highest = _number(policy / "scaling_max_freq")
        if highest:
            yield policy.name, policy / "scaling_max_freq", highest


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(_text(path), base)
    except ValueError:
        return None
