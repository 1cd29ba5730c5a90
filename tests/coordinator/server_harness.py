"""Runs a real server in the test's event loop and calls it over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from store_samples import PROFILE

from coordinator.server.app import Wiring, serve
from coordinator.server.core import Core, ServerConfig
from coordinator.state.records import DeviceRecord, LeaseKind, LeaseRecord
from tunefleet.conversions import profile_to_proto
from tunefleet.devices import DeviceProfile
from tunefleet.features import schema_digest
from tunefleet.lease_conversions import lease_to_proto
from tunefleet.leases import (
    BenchmarkResult,
    BenchmarkSpec,
    FeaturizedTrace,
    FeaturizeSpec,
    Lease,
    RoundSpec,
    Work,
)
from tunefleet.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2_grpc,
    user_service_pb2_grpc,
)

PATIENCE_S = 60.0
"""Longest time a test waits for something that ought to happen at once."""

TTL_S = 60.0


_KINDS = {
    RoundSpec: LeaseKind.ROUND,
    BenchmarkSpec: LeaseKind.BENCHMARK,
    FeaturizeSpec: LeaseKind.FEATURIZE,
}


@dataclass
class ListPlanner:
    """Grants the works on a list, one after the other, for the campaign ``c-1``."""

    works: list[Work] = field(default_factory=list)
    benchmarks: list[tuple[str, list[BenchmarkResult], str]] = field(default_factory=list)
    features: list[tuple[str, list[FeaturizedTrace], str]] = field(default_factory=list)
    rounds: list[str] = field(default_factory=list)
    expected: bool = False
    core: Core | None = None

    def expects_work(self, device: DeviceRecord) -> bool:
        return self.expected

    def featurized(
        self, lease: LeaseRecord, results: Sequence[FeaturizedTrace], error: str
    ) -> None:
        self.features.append((lease.lease_id, list(results), error))

    def round_done(self, lease: LeaseRecord) -> None:
        self.rounds.append(lease.lease_id)

    def next_lease(self, device: DeviceRecord) -> Lease | None:
        assert self.core is not None
        if not self.works:
            return None
        work = self.works.pop(0)
        store, now = self.core.store, self.core.clock()
        token = store.next_fencing_token()
        lease = Lease(f"l-{token}", token, TTL_S, "c-1", work)
        store.grant_lease(
            LeaseRecord(
                lease_id=lease.lease_id,
                fencing_token=token,
                device_id=device.device_id,
                campaign_id="c-1",
                kind=_KINDS[type(work)],
                target=device.target,
                fingerprint=device.fingerprint,
                workload="" if isinstance(work, BenchmarkSpec) else work.workload,
                message=lease_to_proto(lease).SerializeToString(),
                expires_at_unix_s=now + TTL_S,
                granted_at_unix_s=now,
            )
        )
        return lease

    def benchmark_done(
        self, lease: LeaseRecord, results: Sequence[BenchmarkResult], error: str
    ) -> None:
        self.benchmarks.append((lease.lease_id, list(results), error))


@dataclass
class Server:
    """A running server, its insides, and stubs to call it."""

    address: str
    core: Core
    planner: ListPlanner
    channel: grpc.aio.Channel
    stop: asyncio.Event
    finished: asyncio.Task[None]

    @property
    def agents(self) -> Any:
        return agent_service_pb2_grpc.AgentServiceStub(self.channel)

    @property
    def blobs(self) -> Any:
        return blob_service_pb2_grpc.BlobServiceStub(self.channel)

    @property
    def campaigns(self) -> Any:
        return user_service_pb2_grpc.CampaignServiceStub(self.channel)

    @property
    def devices(self) -> Any:
        return user_service_pb2_grpc.DeviceServiceStub(self.channel)

    @property
    def models(self) -> Any:
        return user_service_pb2_grpc.ModelServiceStub(self.channel)

    async def register(self, name: str = "pi4", **changes: Any) -> Any:
        return await self.agents.RegisterAgent(registration(name, **changes))


@asynccontextmanager
async def running_server(
    home: Path, background: Sequence[Callable[[], Any]] = ()
) -> AsyncIterator[Server]:
    """Run a server on a free port for as long as the context lasts."""
    planner = ListPlanner()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()

    def wire(core: Core) -> Wiring:
        planner.core = core
        return Wiring(planner, background)

    config = ServerConfig(home, "127.0.0.1:0")
    finished = asyncio.create_task(serve(config, wire, ready=ready.set_result, stop=stop))
    await asyncio.wait({ready, finished}, return_when=asyncio.FIRST_COMPLETED)
    if finished.done():
        finished.result()
    assert planner.core is not None
    async with grpc.aio.insecure_channel(ready.result()) as channel:
        yield Server(ready.result(), planner.core, planner, channel, stop, finished)
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await finished


def registration(
    name: str = "pi4", profile: DeviceProfile = PROFILE, **changes: Any
) -> agent_service_pb2.RegisterAgentRequest:
    """Make a registration as an agent sends it."""
    fields: dict[str, Any] = {
        "device_id": f"id-{name}",
        "name": name,
        "profile": profile_to_proto(profile),
        "labels": {"site": "lab"},
        "agent_version": "0.1.0",
        "feature_schema": schema_digest(),
    }
    return agent_service_pb2.RegisterAgentRequest(**(fields | changes))


@dataclass(frozen=True)
class Failure:
    """How a call failed."""

    code: grpc.StatusCode
    reason: str
    message: str
    hint: str = ""


async def failure_of(call: Awaitable[Any]) -> Failure:
    """Return how a call fails; it must."""
    try:
        await call
    except grpc.aio.AioRpcError as e:
        status: Any = rpc_status.from_call(e)  # type: ignore[arg-type]
        info = error_details_pb2.ErrorInfo()
        if status is None or not status.details[0].Unpack(info):
            return Failure(e.code(), "", e.details() or "")
        assert info.domain == "tunefleet"
        return Failure(e.code(), info.reason, e.details() or "", info.metadata["hint"])
    raise AssertionError("the call should have failed")
