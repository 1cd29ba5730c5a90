"""What must happen in time without anybody asking for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from coordinator.server.bus import Bus
from coordinator.server.limits import (
    HEARTBEAT_INTERVAL_S,
    LEASE_CHECK_INTERVAL_S,
    LEASE_TTL_S,
    OFFLINE_AFTER_S,
    SUSPENDED_AFTER_S,
)
from coordinator.state.records import LeaseState
from coordinator.state.store import Store

log = structlog.get_logger()


class Upkeep:
    """Ends leases whose time is up and notices devices that fell silent."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Callable[[], float] = time.time,
        interval_s: float = LEASE_CHECK_INTERVAL_S,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._interval_s = interval_s
        self._online: frozenset[str] = frozenset()
        self._offline: frozenset[str] = frozenset()
        """Those that were online."""

    async def run(self) -> None:
        """Look after leases and devices until cancelled."""
        # While nobody was listening, agents could not renew: that must not cost them their work.
        await asyncio.to_thread(self.give_time)
        checked = devices_checked = self._clock()
        while True:
            await asyncio.sleep(self._interval_s)
            now = self._clock()
            try:
                if not 0 <= now - checked <= SUSPENDED_AFTER_S:
                    # Or the clock was set: backwards, leases would hold for as long as that was.
                    log.warning("this process was stopped for a while", seconds=now - checked)
                    await asyncio.to_thread(self.give_time)
                else:
                    await asyncio.to_thread(self.expire)
                checked = now
                if not 0 <= now - devices_checked < HEARTBEAT_INTERVAL_S:
                    devices_checked = now
                    await asyncio.to_thread(self.check_devices)
            except Exception:
                # A full disk, say, passes; agents keep what they measured until then.
                log.exception("upkeep failed")

    def give_time(self) -> None:
        """Let every active lease begin its time anew."""
        expires_at = self._clock() + LEASE_TTL_S
        with self._store.group():
            for lease in self._store.list_leases(states=[LeaseState.ACTIVE]):
                self._store.renew_lease(lease.lease_id, lease.fencing_token, expires_at)

    def expire(self) -> None:
        """End leases whose time is up; their work is free for others."""
        expired = self._store.expire_leases(self._clock())
        for lease in expired:
            log.warning("lease expired", lease=lease.lease_id, device=lease.device_id)
            self._bus.notify_leases(lease.device_id)
            self._bus.notify_campaign(lease.campaign_id)
        if expired:
            self._bus.notify_work()

    def check_devices(self) -> None:
        """Note in the log which devices came and went."""
        now = self._clock()
        online = self._store.heard_of(now - OFFLINE_AFTER_S, now + OFFLINE_AFTER_S)
        came, went = online & self._offline, self._online - online
        for devices, what in ((came, "device online"), (went, "device offline")):
            for device_id in sorted(devices):
                log.info(what, device=self._store.get_device(device_id).name)
        self._online, self._offline = online, (self._offline | went) - came
