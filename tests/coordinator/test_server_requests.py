"""Requests that nobody should send: each is refused for what it is, and nothing is left of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from server_harness import Failure, Server, failure_of, registration, running_server
from store_samples import PROFILE, campaign, task

import tunefleet.v1
from coordinator.server.calls.requests import MAX_TEXT_CHARS, MAX_TEXTS
from coordinator.server.limits import MAX_MESSAGE_BYTES
from tunefleet.conversions import profile_to_proto
from tunefleet.devices import DeviceProfile
from tunefleet.leases import RoundSpec
from tunefleet.v1 import (
    agent_service_pb2,
    blob_service_pb2,
    campaign_pb2,
    dataset_service_pb2,
    device_pb2,
    identity_service_pb2,
    identity_service_pb2_grpc,
    lease_pb2,
    user_service_pb2,
)

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


def methods() -> list[Any]:
    """List every RPC of the main port, from the descriptors."""
    modules = [
        importlib.import_module(f"tunefleet.v1.{found.name}")
        for found in pkgutil.iter_modules(tunefleet.v1.__path__)
        if found.name.endswith("_pb2")
    ]
    services = [s for m in modules for s in m.DESCRIPTOR.services_by_name.values()]
    return [
        m for service in services if service.name != "EnrolmentService" for m in service.methods
    ]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path / "home") as running:
        yield running


async def send(server: Server, method: Any, data: bytes) -> Any:
    """Send raw bytes to any method and read all of the answer."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_"
    kind += "stream" if method.server_streaming else "unary"
    call = getattr(server.channel, kind)(f"/{method.containing_service.full_name}/{method.name}")
    answer = call(iter([data]) if method.client_streaming else data)
    if not method.server_streaming:
        return await answer
    return [part async for part in answer]


def refusal(failure: Failure) -> tuple[grpc.StatusCode, str]:
    return failure.code, failure.reason


class TestAnyRequest:
    @pytest.mark.parametrize("method", methods(), ids=lambda m: m.full_name.rpartition("v1.")[2])
    async def test_bytes_that_are_no_message(self, server: Server, method: Any) -> None:
        failure = await failure_of(send(server, method, b"\xff\xff\xff"))
        assert refusal(failure) == INVALID

    async def test_services_that_grpc_brings_refuse_such_bytes_too(self, server: Server) -> None:
        check = server.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert refusal(await failure_of(check(b"\xff\xff"))) == INVALID

    async def test_a_text_with_nul_which_postgresql_cannot_store(self, server: Server) -> None:
        request = user_service_pb2.GetCampaignRequest(campaign_id="c\0")
        failure = await failure_of(server.campaigns.GetCampaign(request))
        assert refusal(failure) == INVALID
        assert "NUL" in failure.message

    async def test_a_text_that_is_too_long(self, server: Server) -> None:
        request = user_service_pb2.GetDeviceRequest(device="x" * (MAX_TEXT_CHARS + 1))
        assert refusal(await failure_of(server.devices.GetDevice(request))) == INVALID

    async def test_a_text_that_is_too_long_within_a_map(self, server: Server) -> None:
        request = registration(labels={"site": "x" * (MAX_TEXT_CHARS + 1)})
        assert refusal(await failure_of(server.agents.RegisterAgent(request))) == INVALID

    async def test_too_many_entries(self, server: Server) -> None:
        request = blob_service_pb2.FindMissingBlobsRequest(digests=["0" * 64] * (MAX_TEXTS + 1))
        assert refusal(await failure_of(server.blobs.FindMissingBlobs(request))) == INVALID

    async def test_a_time_that_no_calendar_has(self, server: Server) -> None:
        stub = identity_service_pb2_grpc.IdentityServiceStub(server.channel)
        request = identity_service_pb2.CreateTokenRequest(ttl=Duration(seconds=2**62))
        failure = await failure_of(stub.CreateToken(request))
        assert refusal(failure) == INVALID
        assert "Duration" in failure.message

    async def test_what_is_refused_in_a_stream_of_requests(self, server: Server) -> None:
        requests = [blob_service_pb2.PutBlobRequest(digest="\0")]
        assert refusal(await failure_of(server.blobs.PutBlob(requests))) == INVALID

    async def test_the_answer_does_not_repeat_what_is_too_long_for_headers(
        self, server: Server
    ) -> None:
        request = user_service_pb2.GetDeviceRequest(device="x" * MAX_TEXT_CHARS)
        failure = await failure_of(server.devices.GetDevice(request))
        assert failure.reason == "DEVICE_UNKNOWN"
        assert len(failure.message) < 2_000

    async def test_a_compressed_bomb_is_not_unpacked_beyond_the_limit(self, server: Server) -> None:
        request = user_service_pb2.GetDeviceRequest(device="x" * (MAX_MESSAGE_BYTES + 1))
        call = server.devices.GetDevice(request, compression=grpc.Compression.Gzip)
        assert (await failure_of(call)).code is grpc.StatusCode.RESOURCE_EXHAUSTED


class TestRegistration:
    @pytest.mark.parametrize(
        "profile",
        [
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=-2),
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=2, simd_bits=-1),
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=2, memory_bytes=2**62),
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=2, clock_max_mhz=float("inf")),
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=2, cpu_model="\x1b[31m"),
            device_pb2.DeviceProfile(arch="x86_64", logical_cores=2, isa_features=["x"] * 600),
            device_pb2.DeviceProfile(arch="x" * 300, logical_cores=2),
        ],
        ids=["cores", "simd", "memory", "clock", "escape", "flags", "arch"],
    )
    async def test_a_profile_that_cannot_be(
        self, server: Server, profile: device_pb2.DeviceProfile
    ) -> None:
        request = registration(target="llvm")
        request.profile.CopyFrom(profile)
        assert refusal(await failure_of(server.agents.RegisterAgent(request))) == INVALID

    @pytest.mark.parametrize(
        "target",
        [
            '{"kind":"llvm","mcpu":"x/../../../../tmp"}',
            '{"kind":"llvm","num-cores":NaN}',
            '{"kind":"llvm","mattr":7}',
            "[" * 3_000,
            '{"kind":"llvm","keys":' + "[" * 900 + "]" * 900 + "}",
            "llvm -num-cores=" + "9" * 400,
            '{"kind":"\\ud800"}',
            "llvm -mcpu='",
        ],
        ids=["path", "nan", "mattr", "deep", "nested", "huge", "surrogate", "quote"],
    )
    async def test_a_target_that_cannot_be(self, server: Server, target: str) -> None:
        call = server.agents.RegisterAgent(registration(target=target))
        assert refusal(await failure_of(call)) == INVALID

    async def test_a_profile_as_agents_send_it_is_taken(self, server: Server) -> None:
        await server.register()
        stored = server.core.store.get_device("pi4").profile
        assert isinstance(stored, DeviceProfile)
        assert profile_to_proto(stored) == profile_to_proto(PROFILE)


class TestCampaigns:
    async def create(self, server: Server, **changes: Any) -> Failure:
        await server.register()
        digest = server.core.blobs.put(b"model")
        fields = {"name": "net", "model_digest": digest, "model_filename": "net.onnx"} | changes
        spec = campaign_pb2.CampaignSpec(**fields)
        request = user_service_pb2.CreateCampaignRequest(spec=spec)
        return await failure_of(server.campaigns.CreateCampaign(request))

    @pytest.mark.parametrize(
        "changes",
        [
            {"time_limit": Duration(seconds=2**62)},
            {"time_limit": Duration(seconds=10**10)},
            {"purpose": 99},
            {"device_selector": "a," * 5_000},
            {"shapes": {"x": campaign_pb2.Shape(dims=[2**40])}},
            {"shapes": {"x": campaign_pb2.Shape(dims=[1] * 100)}},
            {"targets": ["llvm"] * 100},
            {"model_filename": "x" * 300},
            {"model_filename": "a\x1b[31m"},
        ],
        ids=[
            *("no duration", "three centuries", "purpose", "selector", "size", "rank", "targets"),
            *("long name", "escape"),
        ],
    )
    async def test_what_nobody_can_want(self, server: Server, changes: dict[str, Any]) -> None:
        assert refusal(await self.create(server, **changes)) == INVALID
        assert server.core.store.list_campaigns() == []

    @pytest.mark.parametrize("path", ["..", ".", "../../etc/passwd", "a/b", ".hidden", ""])
    async def test_files_of_a_dataset_that_are_no_plain_names(
        self, server: Server, path: str
    ) -> None:
        digest = server.core.blobs.put(b"rows")
        dataset = campaign_pb2.ImportSpec(
            files=[campaign_pb2.Artifact(path=path, digest=digest)],
            format=campaign_pb2.DATASET_FORMAT_PARQUET,
        )
        failure = await self.create(
            server, purpose=campaign_pb2.CAMPAIGN_PURPOSE_IMPORT, dataset=dataset
        )
        assert refusal(failure) == INVALID

    async def test_a_name_that_is_no_pattern_to_search_with(self, server: Server) -> None:
        request = user_service_pb2.GetCampaignRequest(campaign_id="x" * 10_000)
        failure = await failure_of(server.campaigns.GetCampaign(request))
        assert failure.reason == "CAMPAIGN_UNKNOWN"

    async def test_a_selection_with_a_target_that_is_none(self, server: Server) -> None:
        stub = server.channel.unary_unary(
            "/tunefleet.v1.DatasetService/GetDatasetStats",
            request_serializer=dataset_service_pb2.GetDatasetStatsRequest.SerializeToString,
        )
        selection = dataset_service_pb2.TrialSelection(targets=["{" * 2_000])
        call = stub(dataset_service_pb2.GetDatasetStatsRequest(selection=selection))
        assert refusal(await failure_of(call)) == INVALID


class TestLeases:
    async def leased(self, server: Server) -> Any:
        server.core.store.create_campaign(campaign(), "")
        server.core.store.add_tasks("c-1", [task()])
        await server.register()
        server.planner.works.append(RoundSpec("00000000000000aa", "1" * 64, "{}", 8, 1))
        request = agent_service_pb2.AcquireLeaseRequest(device_id="id-pi4")
        return (await server.agents.AcquireLease(request)).lease

    @pytest.mark.parametrize(
        "changes",
        [
            {"phase_seconds": {"search": float("nan")}},
            {"phase_seconds": {"search": -1.0}},
            {"phase_seconds": {f"p{n}": 1.0 for n in range(100)}},
            {"benchmark": [lease_pb2.BenchmarkResult(name="tuned", samples_s=[float("nan")])]},
            {"benchmark": [lease_pb2.BenchmarkResult(name="tuned", samples_s=[-1.0])]},
            {
                "benchmark": [
                    lease_pb2.BenchmarkResult(
                        name="tuned", ops=[lease_pb2.OpTime(seconds=float("inf"))]
                    )
                ]
            },
        ],
        ids=["nan", "negative", "many", "nan sample", "negative sample", "endless operator"],
    )
    async def test_an_end_that_cannot_be_leaves_the_lease_as_it_was(
        self, server: Server, changes: dict[str, Any]
    ) -> None:
        lease = await self.leased(server)
        request = agent_service_pb2.CompleteLeaseRequest(
            device_id="id-pi4",
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
            outcome=lease_pb2.LEASE_OUTCOME_DONE,
            **changes,
        )
        assert refusal(await failure_of(server.agents.CompleteLease(request))) == INVALID
        held = server.core.store.active_lease("id-pi4")
        assert held is not None
        assert held.lease_id == lease.lease_id
