"""Being there: heartbeats out, hints in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from agent.outbox import Fill
from agent.session.coordinator import Coordinator
from agent.session.pace import Backoff, Pace
from agent.session.rpc import FATAL, Unavailable
from tunefleet.errors import TuneFleetError
from tunefleet.v1.agent_service_pb2 import (
    HINT_LEASE_CHANGED,
    HINT_STOPPING,
    HINT_UNSPECIFIED,
    HINT_WORK_AVAILABLE,
    Hint,
)

_log = structlog.get_logger(__name__)


class Holder(Protocol):
    """Whoever holds leases, as far as it matters here."""

    def look_for_work(self) -> None:
        """Ask for work soon."""

    def held_leases(self) -> Sequence[str]:
        """Return the ids of the leases held."""

    def drop_leases(self, lease_ids: Sequence[str]) -> None:
        """End the work under these leases."""


class Presence:
    """Keeps the coordinator aware of the agent and the agent of what is wanted."""

    def __init__(
        self,
        coordinator: Coordinator,
        holder: Holder,
        outbox_fill: Callable[[], Fill],
        pace: Pace,
    ) -> None:
        self._coordinator = coordinator
        self._holder = holder
        self._outbox_fill = outbox_fill
        self._pace = pace
        self._heartbeat_wanted = asyncio.Event()

    async def listen(self) -> None:
        """Keep a control stream open, for ever. Its end is normal: the truth is elsewhere."""
        backoff = Backoff(self._pace)
        while True:
            wait_s = 0.0
            try:
                async for hint in self._coordinator.control():
                    if hint != HINT_UNSPECIFIED:  # else two agents of one id oust each other fast
                        backoff.reset()
                    self._take(hint)
            except Unavailable as e:
                wait_s = e.retry_after_s
            except TuneFleetError as e:
                _raise_if_fatal(e)
                _log.warning("control stream refused", why=e.message)
            await backoff.wait(wait_s)

    async def send_heartbeats(self) -> None:
        """Send heartbeats for ever, at the interval that the coordinator wishes."""
        backoff = Backoff(self._pace)
        while True:
            self._heartbeat_wanted.clear()
            try:
                dropped = await self._coordinator.send_heartbeat(
                    self._holder.held_leases(), await asyncio.to_thread(self._outbox_fill)
                )
            except Unavailable as e:
                await backoff.wait(e.retry_after_s)
                continue
            except TuneFleetError as e:
                _raise_if_fatal(e)
                _log.warning("heartbeat refused", why=e.message)
                await backoff.wait()
                continue
            backoff.reset()
            self._holder.drop_leases(dropped)
            # Early rather than late, and never all agents in step.
            wait_s = self._pace.spread(0.8 * self._coordinator.heartbeat_interval_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._heartbeat_wanted.wait()

    def _take(self, hint: Hint.ValueType) -> None:
        if hint in {HINT_UNSPECIFIED, HINT_WORK_AVAILABLE}:
            # The stream opens with the former: hints sent before it did are lost.
            self._holder.look_for_work()
        elif hint == HINT_LEASE_CHANGED:
            self._heartbeat_wanted.set()
        elif hint == HINT_STOPPING:
            _log.info("coordinator is about to stop")


def _raise_if_fatal(error: TuneFleetError) -> None:
    if error.reason in FATAL:
        raise error
