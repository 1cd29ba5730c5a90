"""Blobs over the wire, in chunks."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import grpc

from coordinator.server.disk import DiskGuard
from coordinator.server.limits import (
    CHUNK_BYTES,
    MAX_BLOB_BYTES,
    SLOWEST_UPLOAD_BYTES_A_S,
    UPLOAD_GRACE_S,
)
from coordinator.state.blobs import BlobStore
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import blob_service_pb2 as pb
from tunefleet.v1 import blob_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class BlobService(blob_service_pb2_grpc.BlobServiceServicer):
    """Gives blobs out and takes them in."""

    def __init__(
        self, blobs: BlobStore, disk: DiskGuard, max_blob_bytes: int = MAX_BLOB_BYTES
    ) -> None:
        self._blobs = blobs
        self._disk = disk
        self._max_blob_bytes = max_blob_bytes

    async def GetBlob(
        self, request: pb.GetBlobRequest, context: _Context
    ) -> AsyncIterator[pb.GetBlobResponse]:
        """Stream a blob; at least one message comes, so that its size is always told.

        The answer ends with BLOB_CORRUPT where the disk holds something else than the digest says.
        """
        total = await asyncio.to_thread(self._blobs.size, request.digest)
        if not 0 <= request.offset <= total:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"the offset {request.offset} is outside of the blob's {total} bytes",
            )
        with await asyncio.to_thread(self._blobs.reader, request.digest) as reader:
            await asyncio.to_thread(reader.skip, request.offset)
            chunk = await asyncio.to_thread(reader.read, CHUNK_BYTES)
            yield pb.GetBlobResponse(total_bytes=total, chunk=chunk)
            while chunk := await asyncio.to_thread(reader.read, CHUNK_BYTES):
                yield pb.GetBlobResponse(total_bytes=total, chunk=chunk)
            reader.verify()

    async def PutBlob(
        self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: _Context
    ) -> pb.PutBlobResponse:
        """Store a blob if its bytes have the digest that the first message gives."""
        begun = time.monotonic()
        with ExitStack() as stack:
            writer = None
            digest = ""
            async for request in request_iterator:
                if writer is None:
                    digest = request.digest
                    if await asyncio.to_thread(self._blobs.is_sound, digest):
                        size = await asyncio.to_thread(self._blobs.size, digest)
                        return pb.PutBlobResponse(total_bytes=size)
                    await asyncio.to_thread(self._disk.require_room)
                    writer = stack.enter_context(self._blobs.writer())
                if writer.size_bytes + len(request.chunk) > self._max_blob_bytes:
                    raise TuneFleetError(
                        Reason.INVALID_ARGUMENT,
                        f"a blob may have {self._max_blob_bytes} bytes at the most",
                    )
                await asyncio.to_thread(writer.write, request.chunk)
                _require_progress(writer.size_bytes, time.monotonic() - begun)
            if writer is None:
                raise TuneFleetError(Reason.INVALID_ARGUMENT, "no message came with the digest")
            await asyncio.to_thread(writer.commit, digest)
            return pb.PutBlobResponse(total_bytes=writer.size_bytes)

    async def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: _Context
    ) -> pb.FindMissingBlobsResponse:
        """Return the digests of which no blob is stored, or one that the disk has spoiled."""
        missing = await asyncio.to_thread(
            # Each once: looking at a blob reads all of it.
            lambda: [d for d in dict.fromkeys(request.digests) if not self._blobs.is_sound(d)]
        )
        return pb.FindMissingBlobsResponse(digests=missing)


def _require_progress(size_bytes: int, elapsed_s: float) -> None:
    """Refuse an upload that only keeps a place. Raises TIMED_OUT."""
    if elapsed_s > UPLOAD_GRACE_S + size_bytes / SLOWEST_UPLOAD_BYTES_A_S:
        raise TuneFleetError(
            Reason.TIMED_OUT,
            f"{size_bytes} bytes of the blob came in {elapsed_s:.0f} s; an upload must bring "
            f"{SLOWEST_UPLOAD_BYTES_A_S // 1024} KiB a second at the least",
        )
