"""What agents said last of their devices: what waits there to be acknowledged, what time it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vitals:
    """What one device's outbox holds, and what its clock shows."""

    outbox_trials: int = 0
    outbox_bytes: int = 0
    outbox_limit_bytes: int = 0
    """Beyond which the device takes no more work; 0 where its agent does not say."""
    clock_offset_s: float | None = None
    """How far its clock is ahead of ours, in seconds; ``None`` where that is not known."""


class LatestVitals:
    """Remembers it while this process runs; heartbeats bring it again within seconds."""

    def __init__(self) -> None:
        self._known: dict[str, Vitals] = {}

    def note(self, device_id: str, vitals: Vitals) -> None:
        """Take in what a known device says."""
        self._known[device_id] = vitals

    def of(self, device_id: str) -> Vitals:
        """Return what a device said last; nothing of one that said nothing yet."""
        return self._known.get(device_id, Vitals())
