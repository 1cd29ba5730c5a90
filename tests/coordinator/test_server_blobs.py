from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from server_harness import Server, failure_of, running_server

from coordinator.server.blob_service import BlobService
from coordinator.server.calls.errors import ErrorInterceptor
from coordinator.server.limits import CHUNK_BYTES
from tunefleet.v1 import blob_service_pb2 as pb
from tunefleet.v1 import blob_service_pb2_grpc

CONTENT = random.Random(0).randbytes(3 * CHUNK_BYTES + 17)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as started:
        yield started


async def chunks(content: bytes, digest: str) -> AsyncIterator[pb.PutBlobRequest]:
    for start in range(0, max(len(content), 1), CHUNK_BYTES):
        chunk = content[start : start + CHUNK_BYTES]
        yield pb.PutBlobRequest(digest="" if start else digest, chunk=chunk)


def spoil(server: Server) -> None:
    """Store a blob, and change a byte of it on the disk."""
    server.core.blobs.put(CONTENT)
    path = server.core.blobs.path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:9] + b"!" + CONTENT[10:])


async def fetch(server: Server, digest: str, offset: int = 0) -> list[pb.GetBlobResponse]:
    request = pb.GetBlobRequest(digest=digest, offset=offset)
    return [response async for response in server.blobs.GetBlob(request)]


async def test_a_blob_goes_in_and_comes_out(server: Server) -> None:
    put = await server.blobs.PutBlob(chunks(CONTENT, DIGEST))
    assert put.total_bytes == len(CONTENT)
    got = await fetch(server, DIGEST)
    assert b"".join(response.chunk for response in got) == CONTENT
    assert {response.total_bytes for response in got} == {len(CONTENT)}
    assert max(len(response.chunk) for response in got) == CHUNK_BYTES


async def test_a_broken_download_is_taken_up_at_an_offset(server: Server) -> None:
    server.core.blobs.put(CONTENT)
    got = await fetch(server, DIGEST, offset=CHUNK_BYTES + 5)
    assert b"".join(response.chunk for response in got) == CONTENT[CHUNK_BYTES + 5 :]


async def test_the_size_is_told_where_no_bytes_are_left(server: Server) -> None:
    empty = server.core.blobs.put(b"")
    server.core.blobs.put(CONTENT)
    assert await fetch(server, empty) == [pb.GetBlobResponse(total_bytes=0)]
    assert await fetch(server, DIGEST, len(CONTENT)) == [
        pb.GetBlobResponse(total_bytes=len(CONTENT))
    ]


async def test_an_empty_blob_can_be_sent(server: Server) -> None:
    digest = hashlib.sha256(b"").hexdigest()
    assert (await server.blobs.PutBlob(chunks(b"", digest))).total_bytes == 0
    assert server.core.blobs.has(digest)


async def test_sending_a_stored_blob_again_succeeds(server: Server) -> None:
    server.core.blobs.put(CONTENT)
    put = await server.blobs.PutBlob(chunks(CONTENT, DIGEST))
    assert put.total_bytes == len(CONTENT)


async def test_a_blob_that_the_disk_has_spoiled_is_not_given_out_as_sound(server: Server) -> None:
    spoil(server)
    for offset in (0, CHUNK_BYTES + 5, len(CONTENT)):
        failure = await failure_of(fetch(server, DIGEST, offset))
        assert (failure.reason, failure.code) == ("BLOB_CORRUPT", grpc.StatusCode.DATA_LOSS)


async def test_sending_a_spoiled_blob_again_heals_it(server: Server) -> None:
    spoil(server)
    request = pb.FindMissingBlobsRequest(digests=[DIGEST])
    assert list((await server.blobs.FindMissingBlobs(request)).digests) == [DIGEST]
    await server.blobs.PutBlob(chunks(CONTENT, DIGEST))
    assert list((await server.blobs.FindMissingBlobs(request)).digests) == []
    assert server.core.blobs.read(DIGEST, verify=True) == CONTENT


async def test_bytes_with_another_digest_are_not_kept(server: Server) -> None:
    failure = await failure_of(server.blobs.PutBlob(chunks(CONTENT[:-1], DIGEST)))
    assert (failure.reason, failure.code) == ("BLOB_CORRUPT", grpc.StatusCode.DATA_LOSS)
    assert not server.core.blobs.has(DIGEST)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", DIGEST.upper()])
async def test_only_digests_name_blobs(server: Server, digest: str) -> None:
    assert (await failure_of(fetch(server, digest))).reason == "INVALID_ARGUMENT"
    put = server.blobs.PutBlob(chunks(CONTENT, digest))
    assert (await failure_of(put)).reason == "INVALID_ARGUMENT"


async def test_unknown_blobs_and_odd_offsets_are_refused(server: Server) -> None:
    assert (await failure_of(fetch(server, DIGEST))).reason == "BLOB_UNKNOWN"
    server.core.blobs.put(CONTENT)
    for offset in (-1, len(CONTENT) + 1):
        assert (await failure_of(fetch(server, DIGEST, offset))).reason == "INVALID_ARGUMENT"


async def test_missing_blobs_are_found(server: Server) -> None:
    server.core.blobs.put(CONTENT)
    other = hashlib.sha256(b"other").hexdigest()
    answer = await server.blobs.FindMissingBlobs(
        pb.FindMissingBlobsRequest(digests=[DIGEST, other])
    )
    assert list(answer.digests) == [other]


async def test_a_cancelled_upload_leaves_nothing(server: Server) -> None:
    call = server.blobs.PutBlob()
    await call.write(pb.PutBlobRequest(digest=DIGEST, chunk=CONTENT[:100]))
    call.cancel()
    server.stop.set()
    await server.finished
    left = [path for path in server.core.home.blobs_dir.rglob("*") if path.is_file()]
    assert left == []


async def test_an_upload_over_the_limit_is_refused(server: Server) -> None:
    limited = grpc.aio.server(interceptors=[ErrorInterceptor()])
    core = server.core
    service = BlobService(
        core.blobs,
        core.disk,
        core.store,
        quota=core.quota,
        uploads=core.uploads,
        max_blob_bytes=CHUNK_BYTES,
    )
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(service, limited)
    port = limited.add_insecure_port("127.0.0.1:0")
    await limited.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = blob_service_pb2_grpc.BlobServiceStub(channel)
        failure = await failure_of(stub.PutBlob(chunks(CONTENT, DIGEST)))
    await limited.stop(None)
    assert failure.reason == "INVALID_ARGUMENT"
    assert str(CHUNK_BYTES) in failure.message
    assert not server.core.blobs.has(DIGEST)
