"""Blobs over the wire, in chunks."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import grpc
from google.protobuf.message import Message

from coordinator.security.directory import caller
from coordinator.server.disk import DiskGuard
from coordinator.server.limits import (
    CHUNK_BYTES,
    MAX_BLOB_BYTES,
    SLOWEST_UPLOAD_BYTES_A_S,
    UPLOAD_GRACE_S,
)
from coordinator.server.quota import BlobQuota
from coordinator.state.blobs import BlobStore
from coordinator.state.identity_records import Role
from coordinator.state.store import Store
from coordinator.state.uploads import Uploads
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import blob_service_pb2 as pb
from tunefleet.v1 import blob_service_pb2_grpc, lease_pb2

LEASES_LOOKED_AT = 8
"""An agent may still fetch what its last leases named while it learns that they ended."""

_Context = grpc.aio.ServicerContext[Any, Any]


class BlobService(blob_service_pb2_grpc.BlobServiceServicer):
    """Gives blobs out and takes them in."""

    def __init__(
        self,
        blobs: BlobStore,
        disk: DiskGuard,
        store: Store,
        *,
        quota: BlobQuota,
        uploads: Uploads,
        max_blob_bytes: int = MAX_BLOB_BYTES,
    ) -> None:
        self._blobs = blobs
        self._store = store
        self._disk = disk
        self._quota = quota
        self._uploads = uploads
        self._max_blob_bytes = max_blob_bytes

    async def GetBlob(
        self, request: pb.GetBlobRequest, context: _Context
    ) -> AsyncIterator[pb.GetBlobResponse]:
        """Stream a blob; at least one message comes, so that its size is always told.

        The answer ends with BLOB_CORRUPT where the disk holds something else than the digest says.
        """
        who = caller.get()
        if who.role is Role.AGENT:
            await asyncio.to_thread(self._check_named, who.name, request.digest)
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
                    if await asyncio.to_thread(self._uploads.has_sound, digest):
                        size = await asyncio.to_thread(self._blobs.size, digest)
                        return pb.PutBlobResponse(total_bytes=size)
                    await asyncio.to_thread(self._disk.require_room)
                    admit = stack.enter_context(self._quota.upload())
                    writer = stack.enter_context(self._blobs.writer())
                if writer.size_bytes + len(request.chunk) > self._max_blob_bytes:
                    raise TuneFleetError(
                        Reason.INVALID_ARGUMENT,
                        f"a blob may have {self._max_blob_bytes} bytes at the most",
                    )
                await asyncio.to_thread(admit, len(request.chunk))
                await asyncio.to_thread(writer.write, request.chunk)
                _require_progress(writer.size_bytes, time.monotonic() - begun)
            if writer is None:
                raise TuneFleetError(Reason.INVALID_ARGUMENT, "no message came with the digest")
            await asyncio.to_thread(self._uploads.note, digest)
            await asyncio.to_thread(writer.commit, digest)
            return pb.PutBlobResponse(total_bytes=writer.size_bytes)

    async def FindMissingBlobs(
        self, request: pb.FindMissingBlobsRequest, context: _Context
    ) -> pb.FindMissingBlobsResponse:
        """Return the digests of which no blob is stored, or one that the disk has spoiled."""
        missing = await asyncio.to_thread(
            # Each once: looking at a blob reads all of it.
            lambda: [d for d in dict.fromkeys(request.digests) if not self._uploads.has_sound(d)]
        )
        return pb.FindMissingBlobsResponse(digests=missing)

    def _check_named(self, device_id: str, digest: str) -> None:
        """See that one of a device's leases names a blob: it may have no other."""
        for message in self._store.lease_messages(device_id, LEASES_LOOKED_AT):
            if digest in named_digests(lease_pb2.Lease.FromString(message)):
                return
        raise TuneFleetError(
            Reason.FORBIDDEN,
            f"no lease of the device {device_id} names the blob {digest[:80]!r}",
            hint="Agents fetch what their leases need, nothing else.",
        )


def named_digests(message: Message) -> set[str]:
    """Return the values of all fields called ``digest`` or ``…_digest``, at any depth."""
    found: set[str] = set()
    for field, value in message.ListFields():
        if isinstance(value, Message):
            found |= named_digests(value)
        elif isinstance(value, str):
            if field.name == "digest" or field.name.endswith("_digest"):
                found.add(value)
        elif isinstance(value, Mapping):
            found.update(*(named_digests(v) for v in value.values() if isinstance(v, Message)))
        elif isinstance(value, Sequence):
            found.update(*(named_digests(v) for v in value if isinstance(v, Message)))
    return found


def _require_progress(size_bytes: int, elapsed_s: float) -> None:
    """Refuse an upload that only keeps a place. Raises TIMED_OUT."""
    if elapsed_s > UPLOAD_GRACE_S + size_bytes / SLOWEST_UPLOAD_BYTES_A_S:
        raise TuneFleetError(
            Reason.TIMED_OUT,
            f"{size_bytes} bytes of the blob came in {elapsed_s:.0f} s; an upload must bring "
            f"{SLOWEST_UPLOAD_BYTES_A_S // 1024} KiB a second at the least",
        )
