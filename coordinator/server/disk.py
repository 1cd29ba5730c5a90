"""Room on the coordinator's disk: with too little, no new work begins, and what runs can end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from tunefleet.errors import Reason, TuneFleetError

LEAST_FREE_BYTES = 256 * 2**20
"""Enough for what is under way: the last rounds' trials, a model being trained, a network being
compiled."""

log = structlog.get_logger()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class DiskGuard:
    """Tells whether new work may begin. May be asked from any thread."""

    def __init__(
        self,
        folder: Path,
        least_free_bytes: int = LEAST_FREE_BYTES,
        free_bytes: Callable[[Path], int] = _free_bytes,
    ) -> None:
        """Watch the disk of a folder.

        Args:
            folder: the coordinator's home.
            least_free_bytes: that must be free.
            free_bytes: measures it.
        """
        self._folder = folder
        self._least_free_bytes = least_free_bytes
        self.free_bytes = free_bytes
        self._short = False
        self._lock = threading.Lock()

    def require_room(self) -> None:
        """Refuse new work while there is too little room.

        Raises:
            TuneFleetError: DISK_FULL.
        """
        free, short = self._look()
        if short:
            raise TuneFleetError(
                Reason.DISK_FULL,
                f"the disk of {self._folder} has {free // 2**20} MiB left, and "
                f"{self._least_free_bytes // 2**20} MiB are needed to begin anything new",
            )

    def is_short(self) -> bool:
        """Whether there is too little room for new work."""
        return self._look()[1]

    def _look(self) -> tuple[int, bool]:
        """Return the bytes that are free, and whether they are too few."""
        free = self.free_bytes(self._folder)
        short = free < self._least_free_bytes
        with self._lock:
            changed, self._short = short is not self._short, short
        if changed and short:
            log.error("disk nearly full, no new work begins", free_bytes=free)
        elif changed:
            log.info("disk has room again", free_bytes=free)
        return free, short
