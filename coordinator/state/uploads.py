"""Blobs that somebody sent and nothing has named yet: collected after a day.

A marker, an empty file, stands for each; its time is when somebody last asked for the blob. Only
what was sent is ever collected: what the coordinator makes has no marker.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from coordinator.state.blobs import BlobStore

KEPT_S = 24 * 3600.0
"""Whoever sends a model names it within seconds; a dataset of a hundred files within an hour."""


SOUND_FOR_S = 600.0
"""Whoever asks again and again must not keep the disk busy: a blob is read to its end once in so
long, unless its file has changed."""

MOST_REMEMBERED = 10_000
"""Blobs of which it is remembered that they were sound."""


_State = tuple[int, int, int]


class Uploads:
    """The markers. Every method may be called from any thread of one process."""

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs
        self._lock = threading.Lock()
        self._sound: OrderedDict[str, tuple[_State, float]] = OrderedDict()

    def note(self, digest: str) -> None:
        """Note that a blob was sent, before it is stored."""
        with self._lock:
            (self._folder / digest).touch(mode=0o600)

    def has_sound(self, digest: str) -> bool:
        """Return whether a blob is stored whole; one that nothing has named yet then stays for a
        day. Raises INVALID_ARGUMENT if that is no digest."""
        self._blobs.has(digest)  # else the name could be any path
        with self._lock:
            marker = self._folder / digest
            if marker.exists():
                marker.touch()
        return self._is_sound(digest)

    def _is_sound(self, digest: str) -> bool:
        if not self._blobs.has(digest):
            return False
        state, now = _state(self._blobs.path(digest)), time.monotonic()
        with self._lock:
            known = self._sound.get(digest)
        if known is not None and known[0] == state and now - known[1] < SOUND_FOR_S:
            return True
        if not self._blobs.is_sound(digest):
            return False
        with self._lock:
            self._sound[digest] = state, now
            self._sound.move_to_end(digest)
            if len(self._sound) > MOST_REMEMBERED:
                self._sound.popitem(last=False)
        return True

    def collect(
        self, is_named: Callable[[str], bool], now: float | None = None, kept_s: float = KEPT_S
    ) -> list[str]:
        """Remove what nothing names, and forget what something does.

        Args:
            is_named: whether anything in the store names a digest.
            now: seconds since 1970.
            kept_s: how long what was sent is kept.

        Returns:
            Digests of the blobs removed.
        """
        now = time.time() if now is None else now
        return [
            marker.name
            for marker in sorted(self._folder.iterdir())
            if self._collect_one(marker, is_named, now - kept_s)
        ]

    def _collect_one(self, marker: Path, is_named: Callable[[str], bool], before: float) -> bool:
        # Asking whether it is there makes its marker young, and must not come in between.
        with self._lock:
            if marker.stat().st_mtime > before:
                return False
            named = is_named(marker.name)
            if not named:
                self._blobs.remove(marker.name)
            marker.unlink()
            return not named


def _state(file: Path) -> _State:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns
