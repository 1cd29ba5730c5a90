"""Heartbeats, noted together: of a thousand agents some hundred come each second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from coordinator.server.grouping import GroupedCalls
from coordinator.server.limits import HEARTBEATS_GATHERED_S
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError


class Heartbeats:
    """Gathers heartbeats for a moment, and notes them in one call of the store."""

    def __init__(
        self,
        store: Store,
        calls: GroupedCalls,
        clock: Callable[[], float],
        gathered_s: float = HEARTBEATS_GATHERED_S,
    ) -> None:
        self._store = store
        self._calls = calls
        self._clock = clock
        self._gathered_s = gathered_s
        self._waiting: dict[str, asyncio.Future[str | None]] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def note(self, device_id: str) -> str:
        """Note that a device was heard of; returns the id of the lease it holds, empty for none.

        Raises:
            TuneFleetError: AGENT_UNKNOWN.
        """
        if not self._waiting:
            task = asyncio.create_task(self._note_all())
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)
        loop = asyncio.get_running_loop()
        answer = self._waiting.setdefault(device_id, loop.create_future())
        # Shielded: the same device may wait twice, and one of the two give up.
        held = await asyncio.shield(answer)
        if held is None:
            raise unknown_agent(device_id)
        return held

    async def _note_all(self) -> None:
        await asyncio.sleep(self._gathered_s)
        waiting, self._waiting = self._waiting, {}
        touch = partial(self._store.touch_devices, tuple(waiting), self._clock())
        try:
            held = await self._calls.run(touch)
        except BaseException as e:
            for answer in waiting.values():
                answer.set_exception(e)
                answer.exception()  # whoever asked may have gone
            if not isinstance(e, Exception):
                raise
            return
        for device_id, answer in waiting.items():
            answer.set_result(held.get(device_id))


def unknown_agent(device_id: str) -> TuneFleetError:
    """Make the error that has an agent register again."""
    return TuneFleetError(Reason.AGENT_UNKNOWN, f"no agent is registered with the id {device_id!r}")
