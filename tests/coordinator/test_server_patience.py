"""Peers that are silent, slow or endless lose their call, and nobody else notices."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from server_harness import PATIENCE_S, Failure, Server, failure_of, running_server

from coordinator.server import blob_service, gate
from coordinator.server.calls.errors import ErrorInterceptor
from coordinator.server.calls.patience import Patience, PatienceInterceptor
from coordinator.server.calls.throttling import ThrottlingInterceptor
from tunefleet.v1 import agent_service_pb2, blob_service_pb2, user_service_pb2

TOO_SLOW = (grpc.StatusCode.DEADLINE_EXCEEDED, "TIMED_OUT")
HEARTBEAT = "/tunefleet.v1.AgentService/SendHeartbeat"


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server that waits for half a second where others wait for minutes."""
    hasty = Patience(message_s=0.5, answer_s=0.5, stream_s=3.0)

    def interceptors(*_: object) -> list[Any]:
        return [PatienceInterceptor(hasty), ErrorInterceptor(), ThrottlingInterceptor()]

    monkeypatch.setattr(gate, "outer_interceptors", interceptors)
    async with running_server(tmp_path) as started, asyncio.timeout(PATIENCE_S):
        yield started


async def still_answers(server: Server) -> None:
    await server.campaigns.ListCampaigns(user_service_pb2.ListCampaignsRequest())


def what(failure: Failure) -> tuple[grpc.StatusCode, str]:
    return failure.code, failure.reason


async def end_of(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_a_call_without_its_request_is_ended(server: Server) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(PATIENCE_S)
        yield b""

    call = server.channel.stream_unary(HEARTBEAT)
    assert what(await failure_of(call(nothing()))) == TOO_SLOW
    await still_answers(server)


async def test_a_request_that_is_none_is_named(server: Server) -> None:
    call = server.channel.unary_unary(HEARTBEAT)
    failure = await failure_of(call(b"\xff\xff\xff\xff"))
    assert failure.reason == "INVALID_ARGUMENT"


async def test_a_call_that_ends_before_its_request_is_named(server: Server) -> None:
    async def none() -> AsyncIterator[bytes]:
        return
        yield b""

    call = server.channel.stream_unary(HEARTBEAT)
    assert (await failure_of(call(none()))).reason == "INVALID_ARGUMENT"


async def test_an_upload_that_stops_in_the_middle_is_ended(server: Server) -> None:
    async def half() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
        yield blob_service_pb2.PutBlobRequest(digest="0" * 64, chunk=b"half")
        await asyncio.sleep(PATIENCE_S)

    assert what(await failure_of(server.blobs.PutBlob(half()))) == TOO_SLOW
    assert list((server.core.home.blobs_dir / "incoming").iterdir()) == []
    await still_answers(server)


async def test_an_endless_upload_that_trickles_is_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blob_service, "UPLOAD_GRACE_S", 0.3)

    async def trickle() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
        digest = "0" * 64
        while True:
            yield blob_service_pb2.PutBlobRequest(digest=digest, chunk=b"x")
            digest = ""
            await asyncio.sleep(0.05)

    assert what(await failure_of(server.blobs.PutBlob(trickle()))) == TOO_SLOW
    assert list((server.core.home.blobs_dir / "incoming").iterdir()) == []


async def test_a_download_that_nobody_reads_is_ended(server: Server) -> None:
    content = bytes(32 * 2**20)  # more than the transport's buffers take
    server.core.blobs.put(content)
    request = blob_service_pb2.GetBlobRequest(digest=hashlib.sha256(content).hexdigest())
    stream = server.blobs.GetBlob(request)
    await asyncio.sleep(1.0)
    await still_answers(server)
    assert what(await failure_of(end_of(stream))) == TOO_SLOW


async def test_a_call_ends_though_its_client_set_no_deadline(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    await server.register()
    monkeypatch.setattr(server.core.calls, "run", never)
    request = agent_service_pb2.AcquireLeaseRequest(device_id="id-pi4")
    assert what(await failure_of(server.agents.AcquireLease(request))) == TOO_SLOW


async def test_a_stream_ends_though_its_client_set_no_deadline(server: Server) -> None:
    await server.register()
    stream = server.agents.Control(agent_service_pb2.ControlRequest(device_id="id-pi4"))
    assert what(await failure_of(end_of(stream))) == TOO_SLOW
