"""A peer that asks for too much is told when to come again, and others get their share."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from server_harness import PATIENCE_S, Server, failure_of, registration, running_server

from coordinator.server import gate, limits
from coordinator.server.calls import throttling
from coordinator.server.calls.complaints import MOST_PEERS, Complaints
from coordinator.server.calls.errors import ErrorInterceptor
from coordinator.server.calls.patience import PatienceInterceptor
from coordinator.server.calls.rates import Rate, Rates
from coordinator.server.calls.throttling import RATES, ThrottlingInterceptor, Traffic, traffic_of
from tunefleet.v1 import agent_service_pb2, blob_service_pb2, trial_pb2, user_service_pb2

KIB = bytes(1024)
LIMITED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server where nobody may do more than three things of a kind, and then wait long."""
    few = dict.fromkeys(RATES, Rate(0.01, 3.0)) | {Traffic.BYTES: Rate(2.0**20, 2.0**20)}

    def interceptors(*_: object) -> list[Any]:
        return [PatienceInterceptor(), ErrorInterceptor(), ThrottlingInterceptor(few)]

    monkeypatch.setattr(gate, "outer_interceptors", interceptors)
    async with running_server(tmp_path) as started, asyncio.timeout(PATIENCE_S):
        yield started


def heartbeat(server: Server, name: str) -> Any:
    request = agent_service_pb2.SendHeartbeatRequest(device_id=f"id-{name}")
    return server.agents.SendHeartbeat(request)


async def what(call: Any) -> tuple[grpc.StatusCode, str]:
    failure = await failure_of(call)
    return failure.code, failure.reason


class TestRates:
    async def test_a_flood_is_refused_with_the_time_to_wait(self, server: Server) -> None:
        calls = [
            server.campaigns.ListCampaigns(user_service_pb2.ListCampaignsRequest())
            for _ in range(4)
        ]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asyncio.gather(*calls)
        status: Any = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert 0 < retry.retry_delay.seconds <= 100

    async def test_a_flooding_agent_does_not_hurt_another(self, server: Server) -> None:
        for name in ("one", "two"):
            await server.register(name)
        for _ in range(3):
            await heartbeat(server, "one")
        assert await what(heartbeat(server, "one")) == LIMITED
        await heartbeat(server, "two")

    async def test_an_agent_is_known_by_its_metadata_too(self, server: Server) -> None:
        request = blob_service_pb2.FindMissingBlobsRequest()
        for device in ("id-one", "id-two"):
            for _ in range(3):
                metadata = (("tunefleet-device", device),)
                await server.blobs.FindMissingBlobs(request, metadata=metadata)

    async def test_made_up_ids_do_not_help_to_register_many(self, server: Server) -> None:
        for number in range(3):
            await server.register(f"pi{number}")
        assert await what(server.agents.RegisterAgent(registration("pi4"))) == LIMITED

    async def test_trials_count_one_by_one(self, server: Server) -> None:
        await server.register()
        trials = [trial_pb2.Trial() for _ in range(3)]
        request = agent_service_pb2.ReportTrialsRequest(device_id="id-pi4", trials=trials)
        await server.agents.ReportTrials(request)
        small = agent_service_pb2.ReportTrialsRequest(device_id="id-pi4")
        assert await what(server.agents.ReportTrials(small)) == LIMITED

    async def test_transfers_are_slowed_down_and_arrive(self, server: Server) -> None:
        content = bytes(3 * 2**19)
        digest = hashlib.sha256(content).hexdigest()

        async def chunks() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
            for start in range(0, len(content), 2**18):
                yield blob_service_pb2.PutBlobRequest(
                    digest="" if start else digest, chunk=content[start : start + 2**18]
                )

        stored = await server.blobs.PutBlob(chunks())
        assert stored.total_bytes == len(content)

    async def test_what_a_download_skips_counts_too(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        content = bytes(2**21)
        server.core.blobs.put(content)
        owed: list[int] = []
        owe = Rates.owe

        def noted(rates: Rates, key: object, rate: Rate, cost: float) -> float:
            owed.append(int(cost))
            return owe(rates, key, rate, 0)

        monkeypatch.setattr(Rates, "owe", noted)
        digest = hashlib.sha256(content).hexdigest()
        request = blob_service_pb2.GetBlobRequest(digest=digest, offset=len(content) - 5)
        assert [len(answer.chunk) async for answer in server.blobs.GetBlob(request)] == [5]
        assert owed == [len(content) - 5, 5]


class TestStreams:
    async def test_one_too_many_is_refused_until_another_ends(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "BLOB_STREAMS", 1)
        release = asyncio.Event()
        digest = hashlib.sha256(KIB).hexdigest()

        async def slow() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
            yield blob_service_pb2.PutBlobRequest(digest=digest, chunk=KIB)
            await release.wait()

        async def quick() -> AsyncIterator[blob_service_pb2.PutBlobRequest]:
            yield blob_service_pb2.PutBlobRequest(digest=digest, chunk=KIB)

        first = asyncio.ensure_future(server.blobs.PutBlob(slow()))
        incoming = server.core.home.blobs_dir / "incoming"
        while not list(incoming.iterdir()):
            await asyncio.sleep(0.01)
        assert await what(server.blobs.PutBlob(quick())) == LIMITED
        release.set()
        await first
        await server.blobs.PutBlob(quick())

    async def test_a_newer_control_stream_ends_the_older(self, server: Server) -> None:
        await server.register()
        request = agent_service_pb2.ControlRequest(device_id="id-pi4")
        older = server.agents.Control(request)
        await older.read()
        newer = server.agents.Control(request)
        await newer.read()
        assert await older.read() is grpc.aio.EOF
        server.core.bus.notify_work()
        hint = await newer.read()
        assert hint.hint == agent_service_pb2.HINT_WORK_AVAILABLE
        newer.cancel()


class TestBuckets:
    def test_a_bucket_fills_again_with_time(self) -> None:
        now = [0.0]
        rates, rate = Rates(lambda: now[0]), Rate(2.0, 4.0)
        assert rates.take("a", rate, 4) == 0
        assert rates.take("a", rate, 1) == 0.5
        now[0] += 0.5
        assert rates.take("a", rate, 1) == 0
        now[0] += 100
        assert rates.take("a", rate, 4) == 0
        assert rates.take("a", rate, 1) > 0

    def test_what_is_larger_than_the_bucket_passes_when_it_is_full(self) -> None:
        now = [0.0]
        rates, rate = Rates(lambda: now[0]), Rate(1.0, 4.0)
        assert rates.take("a", rate, 10) == 0
        assert rates.take("a", rate, 1) == 7.0

    def test_names_that_are_made_up_take_bounded_space(self) -> None:
        rates, rate = Rates(lambda: 0.0, most_buckets=10), Rate(1.0, 1.0)
        for number in range(1000):
            rates.take(number, rate)
        assert len(rates._buckets) == 10

    def test_the_log_tells_of_a_peer_once_a_minute(self) -> None:
        now = [0.0]
        complaints = Complaints(lambda: now[0])
        assert [complaints.due("a"), complaints.due("a"), complaints.due("b")] == [
            True,
            False,
            True,
        ]
        now[0] += 60
        assert complaints.due("a")
        for number in range(2 * MOST_PEERS):
            complaints.due(str(number))
        assert len(complaints._told) == MOST_PEERS


def test_classes_of_calls() -> None:
    agents, users = "/tunefleet.v1.AgentService/", "/tunefleet.v1.CampaignService/"
    assert traffic_of(agents + "RegisterAgent") is Traffic.REGISTER
    assert traffic_of(agents + "ReportTrials") is Traffic.REPORT
    assert traffic_of(agents + "AcquireLease") is Traffic.WORK
    assert traffic_of(users + "WatchCampaign") is Traffic.READ
    assert traffic_of(users + "CreateCampaign") is Traffic.WRITE


def test_the_limits_leave_room_for_a_large_fleet() -> None:
    assert 1000 * RATES[Traffic.REPORT].a_second >= 2000
    assert RATES[Traffic.REGISTER].burst >= 2 * 1000
    assert RATES[Traffic.REPORT].burst > limits.MAX_TRIALS_A_REPORT
    assert throttling.RATES[Traffic.READ].a_second > 1 / limits.WATCH_MIN_INTERVAL_S
