"""Removes, from time to time, what was sent and never used."""

from __future__ import annotations

import asyncio

import structlog

from coordinator.state.store import Store
from coordinator.state.uploads import Uploads

INTERVAL_S = 3600.0
"""Seldom beside the day for which what was sent is kept."""

log = structlog.get_logger()


class Cleaning:
    """Collects uploads that nothing names."""

    def __init__(self, store: Store, uploads: Uploads, interval_s: float = INTERVAL_S) -> None:
        self._store = store
        self._uploads = uploads
        self._interval_s = interval_s

    async def run(self) -> None:
        """Collect until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                removed = await asyncio.to_thread(self._uploads.collect, self._store.names_blob)
            except Exception:  # a database that is away, say: it will be there in an hour
                log.exception("uploads not collected")
                continue
            if removed:
                log.info("blobs removed that were sent and never used", blobs=len(removed))
