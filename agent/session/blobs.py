"""Blobs on the agent's disk: fetched once, checked, and bounded in space."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

import structlog

from agent.session.coordinator import Coordinator
from agent.session.pace import Backoff, Pace
from agent.session.rpc import FATAL, Unavailable
from tunefleet.errors import Reason, TuneFleetError

DEFAULT_LIMIT_BYTES = 2 * 2**30
"""The few hundred megabytes of a large network, as three compiled modules and an ONNX file."""

_PART_SUFFIX = ".part"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 2**20
_CORRUPT_LIMIT = 2
"""Transfers with wrong content in a row after which it is not the network's fault."""

_log = structlog.get_logger(__name__)


class BlobCache:
    """A folder of blobs, each in a file named by its SHA-256, least recently used dropped first."""

    def __init__(
        self,
        folder: Path,
        coordinator: Coordinator,
        pace: Pace,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        self._folder = folder
        self._coordinator = coordinator
        self._pace = pace
        self._limit_bytes = limit_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def fetch(self, digests: Iterable[str]) -> dict[str, Path]:
        """Make blobs available; these stay until the next call at least.

        Waits for a coordinator that is away, and takes up broken transfers where they ended.

        Args:
            digests: SHA-256 of each, in hex; empty ones are skipped.

        Returns:
            The file of each.

        Raises:
            TuneFleetError: BLOB_UNKNOWN, or BLOB_CORRUPT if the content never fits the digest.
            OSError: the disk is full or failed.
        """
        paths = {digest: await self._fetch_one(digest) for digest in digests if digest}
        await asyncio.to_thread(self._evict, set(paths))
        return paths

    async def _fetch_one(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise TuneFleetError(Reason.BLOB_UNKNOWN, f"{digest!r} is not the name of a blob")
        path = self._folder / digest
        if path.exists():
            os.utime(path)
            return path
        part = self._folder / (digest + _PART_SUFFIX)
        await self._download(digest, part)
        part.replace(path)
        return path

    async def _download(self, digest: str, part: Path) -> None:
        backoff = Backoff(self._pace)
        corrupt = 0
        while True:
            offset = part.stat().st_size if part.exists() else 0
            try:
                await self._append(digest, part, offset)
            except Unavailable as e:
                if part.exists() and part.stat().st_size > offset:
                    backoff.reset()
                await backoff.wait(e.retry_after_s)
                continue
            except TuneFleetError as e:
                if e.reason is Reason.BLOB_UNKNOWN or e.reason in FATAL or offset == 0:
                    raise
                # The offset may lie beyond the end of a blob of which we hold rubbish.
                part.unlink()
                continue
            if part.exists() and await asyncio.to_thread(_sha256, part) == digest:
                return
            corrupt += 1
            _log.warning("fetched blob is corrupt", digest=digest, attempt=corrupt)
            part.unlink(missing_ok=True)
            if corrupt >= _CORRUPT_LIMIT:
                raise TuneFleetError(Reason.BLOB_CORRUPT, f"blob {digest} arrives corrupt")

    async def _append(self, digest: str, part: Path, offset: int) -> None:
        with part.open("ab") as file:
            async for chunk in self._coordinator.get_blob(digest, offset):
                file.write(chunk)
            file.flush()
            # A name must never stand for content that a power cut took away.
            await asyncio.to_thread(os.fsync, file.fileno())

    def _evict(self, keep: set[str]) -> None:
        files = [(path.stat(), path) for path in self._folder.iterdir() if path.is_file()]
        used = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda file: file[0].st_mtime):
            if used <= self._limit_bytes:
                return
            if path.name not in keep:
                path.unlink()
                used -= status.st_size


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
