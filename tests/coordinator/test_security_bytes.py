"""Bytes that nobody should send, from those who were let in and those who were not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from secure_server import SecureServer, secure_server

from tunefleet.identity.keys import SERVER_NAME
from tunefleet.v1 import agent_service_pb2, trial_pb2


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SecureServer]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    async with secure_server(tmp_path / "home") as running:
        yield running


async def test_a_refusal_is_noted_though_what_was_refused_cannot_be_written(
    server: SecureServer,
) -> None:
    agent = await server.agent("id-pi4")
    impossible = trial_pb2.Trial(started_at=Timestamp(seconds=2**62))
    request = agent_service_pb2.ReportTrialsRequest(device_id="another", trials=[impossible])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await agent.agents.ReportTrials(request)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    [entry] = [e for e in server.core.store.list_audit(10, 0) if "ReportTrials" in e.action]
    assert entry.outcome == "FORBIDDEN"
    assert "cannot be written" in entry.detail


async def test_of_a_large_request_that_is_refused_the_size_is_noted(server: SecureServer) -> None:
    agent = await server.agent("id-pi4")
    trials = [trial_pb2.Trial(trace="x" * 1000)] * 200
    request = agent_service_pb2.ReportTrialsRequest(device_id="another", trials=trials)
    with pytest.raises(grpc.aio.AioRpcError):
        await agent.agents.ReportTrials(request)
    [entry] = [e for e in server.core.store.list_audit(10, 0) if "ReportTrials" in e.action]
    assert entry.detail == f"a request of {request.ByteSize()} bytes"


async def test_bytes_of_a_stranger_that_are_no_request_to_join(server: SecureServer) -> None:
    token = await server.token()
    pinned = (server.home / "authority" / "enrolment.pem").read_bytes()
    shown = grpc.ssl_channel_credentials(pinned)
    options = (("grpc.ssl_target_name_override", SERVER_NAME),)
    async with grpc.aio.secure_channel(f"127.0.0.1:{token.port}", shown, options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary("/tunefleet.v1.EnrolmentService/Enrol")(b"\xff\xff\xff")
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
