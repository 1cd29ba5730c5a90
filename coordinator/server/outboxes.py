"""What waits on devices to be acknowledged, and their clocks, as their agents said last."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OutboxFill:
    """What one device's outbox holds, and what its clock shows."""

    trials: int = 0
    size_bytes: int = 0
    limit_bytes: int = 0
    """Beyond which the device takes no more work; 0 where its agent does not say."""
    clock_offset_s: float | None = None
    """How far its clock is ahead of ours, in seconds; ``None`` where that is not known."""


class Outboxes:
    """Remembers it while this process runs; heartbeats bring it again within seconds."""

    def __init__(self) -> None:
        self._fills: dict[str, OutboxFill] = {}

    def note(self, device_id: str, fill: OutboxFill) -> None:
        """Take in what a known device says."""
        self._fills[device_id] = fill

    def of(self, device_id: str) -> OutboxFill:
        """Return what a device said last; nothing of one that said nothing yet."""
        return self._fills.get(device_id, OutboxFill())
