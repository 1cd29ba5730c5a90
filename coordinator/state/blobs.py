"""Blobs in a folder, named by the SHA-256 of their content."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tunefleet.errors import Reason, TuneFleetError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COPY_BYTES = 2**20


class BlobStore:
    """Blobs that are there whole or not at all, and never change.

    Every method may be called from any thread and any process.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self._folder

    def used_bytes(self) -> int:
        """Return the bytes of all blobs, broken and running transfers not counted."""
        total = 0
        for shard in self._folder.glob("[0-9a-f][0-9a-f]"):
            with os.scandir(shard) as entries:
                total += sum(entry.stat().st_size for entry in entries)
        return total

    def remove(self, digest: str) -> None:
        """Remove a blob that nothing names; nothing happens where there is none."""
        self._place(digest).unlink(missing_ok=True)

    def put(self, content: bytes) -> str:
        """Store bytes durably and return their digest."""
        with self.writer() as writer:
            writer.write(content)
            return writer.commit()

    def put_file(self, path: Path) -> str:
        """Store a copy of a file durably and return its digest."""
        with self.writer() as writer, path.open("rb") as source:
            while chunk := source.read(_COPY_BYTES):
                writer.write(chunk)
            return writer.commit()

    def writer(self) -> BlobWriter:
        """Begin a blob that arrives in chunks; use it in a ``with``."""
        return BlobWriter(self, self._incoming)

    def has(self, digest: str) -> bool:
        """Return whether a blob is stored. Raises INVALID_ARGUMENT if that is no digest."""
        return self._place(digest).is_file()

    def path(self, digest: str) -> Path:
        """Return where a blob lies, to be read only. Raises BLOB_UNKNOWN."""
        place = self._place(digest)
        if not place.is_file():
            raise TuneFleetError(Reason.BLOB_UNKNOWN, f"no blob {digest} is stored")
        return place

    def size(self, digest: str) -> int:
        """Return a blob's size in bytes. Raises BLOB_UNKNOWN."""
        return self.path(digest).stat().st_size

    def reader(self, digest: str) -> BlobReader:
        """Open a blob for reading in chunks; use it in a ``with``. Raises BLOB_UNKNOWN."""
        return BlobReader(self.path(digest), digest)

    def is_sound(self, digest: str) -> bool:
        """Return whether a blob is stored and is what its digest says. Raises INVALID_ARGUMENT."""
        if not self.has(digest):
            return False
        with self.reader(digest) as reader:
            reader.skip(self.size(digest))
            return reader.is_sound

    def read(self, digest: str, *, verify: bool = False) -> bytes:
        """Return a blob's bytes.

        Raises:
            TuneFleetError: BLOB_UNKNOWN, or BLOB_CORRUPT if ``verify`` finds that the disk holds
                something else.
        """
        content = self.path(digest).read_bytes()
        if verify and hashlib.sha256(content).hexdigest() != digest:
            raise TuneFleetError(Reason.BLOB_CORRUPT, f"blob {digest} has changed on the disk")
        return content

    def remove_leftovers(self) -> None:
        """Remove what broken transfers left; only while nobody else writes."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def _place(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT, f"{digest[:80]!r} is not a SHA-256 in lower-case hex"
            )
        return self._folder / digest[:2] / digest[2:]

    def _adopt(self, incoming: Path, digest: str) -> None:
        place = self._place(digest)
        place.parent.mkdir(exist_ok=True)
        # Over what is there as well: sending a blob again heals one that the disk has spoiled.
        incoming.replace(place)
        for folder in (place.parent, self._folder):
            _sync_folder(folder)


class BlobReader:
    """One blob on its way out."""

    def __init__(self, path: Path, digest: str) -> None:
        self._file = path.open("rb")
        self._digest = digest
        self._hash = hashlib.sha256()

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._file.close()

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes, or all that are left; none at the end."""
        chunk = self._file.read(size)
        self._hash.update(chunk)
        return chunk

    def skip(self, size: int) -> None:
        """Pass over bytes, which are part of what is verified."""
        while size > 0 and (chunk := self.read(min(size, _COPY_BYTES))):
            size -= len(chunk)

    @property
    def is_sound(self) -> bool:
        """Whether what was read is the blob."""
        return self._hash.hexdigest() == self._digest

    def verify(self) -> None:
        """Check that what was read is the blob. Raises BLOB_CORRUPT."""
        if not self.is_sound:
            raise TuneFleetError(
                Reason.BLOB_CORRUPT, f"blob {self._digest} has changed on the disk"
            )


class BlobWriter:
    """One blob on its way in. Without a commit nothing stays."""

    def __init__(self, store: BlobStore, folder: Path) -> None:
        self._store = store
        handle, name = tempfile.mkstemp(dir=folder)
        self._file = os.fdopen(handle, "wb")
        self._path = Path(name)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not committed."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def commit(self, expected: str | None = None) -> str:
        """Store the blob durably and return its digest.

        Raises:
            TuneFleetError: BLOB_CORRUPT if the bytes do not have the expected digest.
        """
        digest = self._hash.hexdigest()
        if expected is not None and digest != expected:
            raise TuneFleetError(
                Reason.BLOB_CORRUPT, f"the bytes received have the digest {digest}, not {expected}"
            )
        self._file.flush()
        os.fchmod(self._file.fileno(), 0o444)
        os.fsync(self._file.fileno())
        self._store._adopt(self._path, digest)
        return digest


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
