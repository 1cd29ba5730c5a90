"""Says within this process that something changed. What changed is in the store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from enum import Enum, auto

from coordinator.server.limits import WATCH_MAX_INTERVAL_S, WATCH_MIN_INTERVAL_S


class Notice(Enum):
    """What an agent may want to look at."""

    OPENED = auto()
    WORK = auto()
    LEASES = auto()
    STOPPING = auto()
    REPLACED = auto()
    """Somebody else watches for the same device now."""


class Bus:
    """Wakes whoever waits. Notices are coalesced: many changes may wake a waiter once.

    Notifying is allowed from any thread and costs nothing where nobody waits; the iterators
    belong to the event loop they are used in.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[_Listener, str] = {}
        self._campaigns: dict[_Listener, str] = {}
        self._at_work: set[str] = set()
        self._hardware: dict[str, str] = {}
        self._told = 0
        self._stopped = False

    def notify_campaign(self, campaign_id: str) -> None:
        """Say that a campaign, its tasks or its trials changed."""
        with self._lock:
            wanted = [at for at, name in self._campaigns.items() if name in {"", campaign_id}]
        for listener in wanted:
            listener.note(None)

    def notify_work(self, fingerprint: str = "", at_most: int | None = None) -> None:
        """Say that there may be work to lease, to devices that wait for some.

        A thousand agents that all ask after every round would keep the coordinator from all else.

        Args:
            fingerprint: of the hardware that it is for; empty for any.
            at_most: devices for which there may be some; ``None`` for any number.
        """
        with self._lock:
            waiting = [
                at
                for at, name in self._devices.items()
                if name not in self._at_work
                and (not fingerprint or self._hardware.get(name, fingerprint) == fingerprint)
            ]
            if at_most is not None and len(waiting) > at_most:
                # In turn: whoever is told may not be the one who gets it.
                first = self._told % len(waiting)
                self._told += at_most
                waiting = (waiting[first:] + waiting[:first])[:at_most]
        for listener in waiting:
            listener.note(Notice.WORK)

    def device_waits(self, device_id: str, fingerprint: str) -> None:
        """Note that a device asks for work, before it is looked for; no later work is missed."""
        with self._lock:
            self._at_work.discard(device_id)
            self._hardware[device_id] = fingerprint

    def device_works(self, device_id: str) -> None:
        """Note that a device has been given work: it will ask again by itself."""
        with self._lock:
            self._at_work.add(device_id)

    def waiting_devices(self) -> int:
        """Return how many connected devices wait for work."""
        with self._lock:
            return sum(name not in self._at_work for name in self._devices.values())

    def connected_devices(self) -> int:
        """Return how many devices listen for hints."""
        with self._lock:
            return len(self._devices)

    def notify_leases(self, device_id: str) -> None:
        """Say that a lease of this device ended without its doing."""
        with self._lock:
            wanted = [at for at, name in self._devices.items() if name == device_id]
        for listener in wanted:
            listener.note(Notice.LEASES)

    def stop(self) -> None:
        """End all iterators; agents are told before."""
        with self._lock:
            self._stopped = True
            everyone = [*self._devices, *self._campaigns]
        for listener in everyone:
            listener.note(Notice.STOPPING)

    async def watch_campaign(
        self,
        campaign_id: str,
        min_interval_s: float = WATCH_MIN_INTERVAL_S,
        max_interval_s: float = WATCH_MAX_INTERVAL_S,
    ) -> AsyncGenerator[None, None]:
        """Yield at once, whenever the campaign changed, and from time to time all the same.

        Args:
            campaign_id: whose changes; empty for those of any campaign.
            min_interval_s: shortest time between two yields, in seconds.
            max_interval_s: longest time between two yields, in seconds.
        """
        with self._listening(self._campaigns, campaign_id) as listener:
            while not self._stopped:
                listener.take()
                yield
                await asyncio.sleep(min_interval_s)
                await listener.wait(max_interval_s - min_interval_s)

    async def watch_device(self, device_id: str) -> AsyncGenerator[Notice, None]:
        """Yield what is worth looking at for an agent: OPENED at first, STOPPING at last.

        A device has one watcher: a newer one ends the older, whose connection is likely to be dead.
        """
        with self._lock:
            older = [at for at, name in self._devices.items() if name == device_id]
        for listener in older:
            listener.note(Notice.REPLACED)
        with self._listening(self._devices, device_id) as listener:
            # From here on nothing is missed.
            yield Notice.OPENED
            while True:
                await listener.wait(None)
                for notice in listener.take():
                    if notice is Notice.REPLACED:
                        return
                    yield notice
                    if notice is Notice.STOPPING:
                        return

    @contextmanager
    def _listening(self, listeners: dict[_Listener, str], name: str) -> Iterator[_Listener]:
        listener = _Listener()
        with self._lock:
            listeners[listener] = name
            stopped = self._stopped
        if stopped:
            listener.note(Notice.STOPPING)
        try:
            yield listener
        finally:
            with self._lock:
                del listeners[listener]
                if name not in self._devices.values():
                    self._at_work.discard(name)
                    self._hardware.pop(name, None)


class _Listener:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        # Ordered, and each once.
        self._notices: dict[Notice, None] = {}

    def note(self, notice: Notice | None) -> None:
        self._loop.call_soon_threadsafe(self._wake, notice)

    def take(self) -> list[Notice]:
        notices = list(self._notices)
        self._notices.clear()
        self._event.clear()
        return notices

    async def wait(self, timeout_s: float | None) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return

    def _wake(self, notice: Notice | None) -> None:
        if notice is not None:
            self._notices[notice] = None
        self._event.set()
