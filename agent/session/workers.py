"""The processes that search and measure: started by need, ended when nothing needs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from agent.measure.client import Measurer
from agent.search.client import Searcher
from agent.session.pace import Pace

DEFAULT_IDLE_S = 120.0
"""Long enough for the next round to come, so that no round pays for importing TVM."""

_log = structlog.get_logger(__name__)


class Workers:
    """A searcher and a measurer, whose processes end after a while without work."""

    def __init__(self, log_dir: Path, threads: int, pace: Pace, idle_s: float) -> None:
        """Prepare, without starting anything.

        Args:
            log_dir: folder for their logs.
            threads: candidates built at a time.
            pace: how to wait.
            idle_s: seconds without work after which they end.
        """
        self.searcher = Searcher(log_dir / "search.log")
        self.measurer = Measurer(log_dir, threads=threads)
        self._pace = pace
        self._idle_s = idle_s
        self._users = 0
        self._closing: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None

    def warm_up(self) -> None:
        """Start both in the background, unless they are there."""
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._warm_up())

    @asynccontextmanager
    async def in_use(self) -> AsyncIterator[None]:
        """Keep them; they may end a while after the block does."""
        self._users += 1
        try:
            await self._stay()
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._closing = asyncio.create_task(self._close_when_idle())

    async def close(self) -> None:
        """End them now, with everything they started."""
        warming, self._warming = self._warming, None
        if warming is not None:
            warming.cancel()
            await asyncio.wait({warming})
        await self._stay()
        await asyncio.gather(self.searcher.close(), self.measurer.close())

    async def _warm_up(self) -> None:
        async with self.in_use():
            results = await asyncio.gather(
                self.searcher.warm_up(), self.measurer.warm_up(), return_exceptions=True
            )
        for error in results:
            if error is not None:  # the work itself will fail of the same, and say so
                _log.warning("worker not started", why=str(error))

    async def _stay(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.cancel()
            await asyncio.wait({closing})

    async def _close_when_idle(self) -> None:
        await self._pace.sleep(self._idle_s)
        _log.info("workers ended, nothing to do")
        await asyncio.gather(self.searcher.close(), self.measurer.close())
