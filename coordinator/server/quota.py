"""How much room uploads may take on the coordinator's disk."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coordinator.state.blobs import BlobStore
from tunefleet.errors import Reason, TuneFleetError

DEFAULT_QUOTA = "50%"
"""Of the disk: a stranger to the machine's other users must leave them half of it, and a
coordinator on a disk of its own rarely comes near."""

COUNT_INTERVAL_S = 60.0
"""How often files are counted; jobs in other processes add to them."""

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)
_SHARE = re.compile(r"(?P<percent>\d+(?:\.\d+)?)\s*%")


@dataclass(frozen=True)
class Quota:
    """A limit in bytes, or as a share of the disk; neither for none."""

    limit_bytes: int = 0
    disk_share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Quota:
        """Read ``200GB``, ``50%`` or ``none``; units are powers of 1024. Raises ValueError."""
        share, size = _SHARE.fullmatch(text.strip()), _SIZE.fullmatch(text.strip())
        if text == "none":
            return cls()
        if share is not None and 0 < float(share["percent"]) <= 100:
            return cls(disk_share=float(share["percent"]) / 100)
        if size is not None and float(size["number"]) > 0:
            return cls(limit_bytes=int(float(size["number"]) * _UNITS[size["unit"].lower()]))
        raise ValueError(f"{text!r} is neither a size such as 200GB, nor a share, nor `none`")

    def on(self, disk_bytes: int) -> int:
        """Return the limit in bytes on a disk of a size; 0 for none."""
        return self.limit_bytes or int(self.disk_share * disk_bytes)


class BlobQuota:
    """Refuses uploads beyond a limit. What the coordinator itself makes counts, and is let in.

    Every method may be called from any thread.
    """

    def __init__(
        self, blobs: BlobStore, quota: Quota, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._blobs = blobs
        self.limit_bytes = quota.on(shutil.disk_usage(blobs.folder).total)
        """0 for none."""
        self._clock = clock
        self._lock = threading.Lock()
        self._stored = 0
        self._counted_at: float | None = None
        self._incoming = 0

    def used_bytes(self) -> int:
        """Return the bytes of all blobs, as counted within the last minute."""
        with self._lock:
            now = self._clock()
            if self._counted_at is None or now - self._counted_at >= COUNT_INTERVAL_S:
                self._stored = self._blobs.used_bytes()
                self._counted_at = now
            return self._stored

    @contextmanager
    def upload(self) -> Iterator[Callable[[int], None]]:
        """Admit one upload, piece by piece.

        Yields:
            What is called with the bytes of each piece before it is written; it raises BLOB_QUOTA.
            Once the block ends without an error, the bytes count as stored.
        """
        size = 0

        def admit(piece: int) -> None:
            nonlocal size
            used = self.used_bytes()
            with self._lock:
                if self.limit_bytes and used + self._incoming + piece > self.limit_bytes:
                    raise TuneFleetError(
                        Reason.BLOB_QUOTA,
                        f"the coordinator's blobs may take {self.limit_bytes // 2**20} MiB, of "
                        f"which {(used + self._incoming) // 2**20} are in use",
                    )
                self._incoming += piece
                size += piece

        try:
            yield admit
        except BaseException:
            with self._lock:
                self._incoming -= size
            raise
        with self._lock:
            self._incoming -= size
            self._stored += size
