"""How often agents are to speak: of many, each the less."""

from __future__ import annotations

from coordinator.server.bus import Bus
from coordinator.server.limits import (
    ASKING_A_S,
    HEARTBEAT_INTERVAL_S,
    HEARTBEATS_A_S,
    LONGEST_HEARTBEAT_INTERVAL_S,
    LONGEST_REPORTS_S,
    QUICKEST_REPORTS_S,
    REPORTS_A_S,
    RETRY_AFTER_S,
)


class Paces:
    """Times between two calls of an agent, in seconds, by the size of the fleet."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def heartbeat_interval_s(self) -> float:
        """Return the time to the next heartbeat."""
        wished_s = self._bus.connected_devices() / HEARTBEATS_A_S
        return min(max(wished_s, HEARTBEAT_INTERVAL_S), LONGEST_HEARTBEAT_INTERVAL_S)

    def report_interval_s(self) -> float:
        """Return for how long trials are to be gathered before they are reported."""
        wished_s = self._bus.connected_devices() / REPORTS_A_S
        return min(max(wished_s, QUICKEST_REPORTS_S), LONGEST_REPORTS_S)

    def retry_after_s(self) -> float:
        """Return when a device that there is no work for is to ask again."""
        return max(RETRY_AFTER_S, self._bus.waiting_devices() / ASKING_A_S)
