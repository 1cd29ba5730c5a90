"""Giving out no more work, so that what runs can end before something is taken down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from coordinator.server.bus import Bus
from coordinator.state.records import LeaseRecord, LeaseState
from coordinator.state.store import Store

SWITCH = "draining"
"""Its name in the store: a coordinator that is drained stays so when it starts again."""

CHECK_INTERVAL_S = 0.5

log = structlog.get_logger()


class Drain:
    """Whether the whole coordinator is drained; a device's own drain is part of its record."""

    def __init__(self, store: Store, bus: Bus) -> None:
        self._store = store
        self._bus = bus
        # Read once: whoever asks for work asks for this too.
        self._on = store.is_on(SWITCH)
        self._closing = False

    @property
    def on(self) -> bool:
        """Whether somebody drains it until further notice."""
        return self._on

    @property
    def gives_work(self) -> bool:
        """Whether devices may be given work."""
        return not (self._on or self._closing)

    async def switch(self, *, on: bool) -> None:
        """Begin or end draining, durably."""
        await asyncio.to_thread(self._store.set_switch, SWITCH, on=on)
        if on is not self._on:
            log.info("draining" if on else "giving out work again")
        self._on = on
        if not on:
            self._bus.notify_work()

    def active(self) -> list[LeaseRecord]:
        """Return the work that is under way."""
        return self._store.list_leases(states=[LeaseState.ACTIVE])

    async def finish(
        self,
        limit_s: float,
        hurry: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Give out no more work, until the next start, and wait for what is under way.

        Args:
            limit_s: seconds after which to leave it to agents to go on without a coordinator.
            hurry: ends the wait when it is set.
            clock: in seconds, from any moment on.
        """
        self._closing = True
        ends_at = clock() + limit_s
        left = -1
        while active := await asyncio.to_thread(self.active):
            if len(active) != left:
                left = len(active)
                log.info("waiting for rounds under way", rounds=left)
            if clock() >= ends_at or hurry.is_set():
                log.warning("not waiting any longer; agents go on by themselves", rounds=left)
                return
            await asyncio.sleep(CHECK_INTERVAL_S)
