"""What is drained gets no more work, and finishes what it has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from server_harness import PATIENCE_S, Server, failure_of, running_server
from store_samples import KEY, OTHER_KEY, campaign, task

from coordinator.server import app
from coordinator.server.app import ServerConfig, serve
from coordinator.server.draining import Drain
from coordinator.state.records import LeaseState
from tunefleet import __version__
from tunefleet.leases import RoundSpec
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import device_pb2, lease_pb2, user_service_pb2, user_service_pb2_grpc

ROUND = RoundSpec(KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)
OTHER_ROUND = RoundSpec(OTHER_KEY.workload, "1" * 64, KEY.target, trials=8, seed=1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server with two devices, of which one has a round, and another round to give out."""
    async with running_server(tmp_path) as started:
        await prepare(started)
        yield started


async def prepare(server: Server) -> None:
    for name in ("busy", "idle"):
        await server.register(name, target=KEY.target)
    server.core.store.create_campaign(campaign(), "")
    server.core.store.add_tasks("c-1", [task(), task(OTHER_KEY)])
    server.planner.works.append(ROUND)
    assert (await acquire(server, "busy")).HasField("lease")
    server.planner.works.append(OTHER_ROUND)
    server.planner.expected = True


async def acquire(server: Server, name: str) -> Any:
    return await server.agents.AcquireLease(pb.AcquireLeaseRequest(device_id=f"id-{name}"))


async def complete(server: Server) -> None:
    [lease] = server.core.drain.active()
    request = pb.CompleteLeaseRequest(
        device_id=lease.device_id,
        lease_id=lease.lease_id,
        fencing_token=lease.fencing_token,
        outcome=lease_pb2.LEASE_OUTCOME_DONE,
    )
    await server.agents.CompleteLease(request)


def coordinator(server: Server) -> Any:
    return user_service_pb2_grpc.CoordinatorServiceStub(server.channel)


class TestDevices:
    async def test_a_drained_device_finishes_its_round_and_gets_no_other(
        self, server: Server
    ) -> None:
        request = user_service_pb2.DrainDeviceRequest(device="busy")
        draining = (await server.devices.DrainDevice(request)).device
        assert draining.state == device_pb2.DEVICE_STATE_DRAINING
        held = await acquire(server, "busy")
        renewal = pb.RenewLeaseRequest(
            device_id="id-busy",
            lease_id=held.lease.lease_id,
            fencing_token=held.lease.fencing_token,
        )
        await server.agents.RenewLease(renewal)
        await complete(server)
        answer = await acquire(server, "busy")
        assert not answer.HasField("lease")
        assert not answer.work_expected
        [shown] = [
            d
            for d in (
                await server.devices.ListDevices(user_service_pb2.ListDevicesRequest())
            ).devices
            if d.name == "busy"
        ]
        assert (shown.state, shown.draining) == (device_pb2.DEVICE_STATE_DRAINED, True)
        assert (await acquire(server, "idle")).HasField("lease"), "others go on"

    async def test_it_stays_drained_when_it_registers_again(self, server: Server) -> None:
        await server.devices.DrainDevice(user_service_pb2.DrainDeviceRequest(device="idle"))
        await server.register("idle", target=KEY.target)
        assert not (await acquire(server, "idle")).HasField("lease")

    async def test_undrained_it_gets_work_again(self, server: Server) -> None:
        await server.devices.DrainDevice(user_service_pb2.DrainDeviceRequest(device="idle"))
        request = user_service_pb2.UndrainDeviceRequest(device="idle")
        undrained = (await server.devices.UndrainDevice(request)).device
        assert undrained.state == device_pb2.DEVICE_STATE_ONLINE
        assert (await acquire(server, "idle")).HasField("lease")

    async def test_a_device_that_is_not_known_is_named(self, server: Server) -> None:
        request = user_service_pb2.DrainDeviceRequest(device="nobody")
        assert (await failure_of(server.devices.DrainDevice(request))).reason == "DEVICE_UNKNOWN"


class TestCoordinator:
    async def test_a_drained_coordinator_gives_out_nothing(self, server: Server) -> None:
        request = user_service_pb2.DrainCoordinatorRequest()
        found = (await coordinator(server).DrainCoordinator(request)).coordinator
        assert (found.draining, found.active_leases, found.busy_devices) == (True, 1, ["busy"])
        assert not (await acquire(server, "idle")).HasField("lease")
        await complete(server)
        asked = user_service_pb2.GetCoordinatorRequest()
        found = (await coordinator(server).GetCoordinator(asked)).coordinator
        assert (found.draining, found.active_leases) == (True, 0)
        assert found.version == __version__

    async def test_it_stays_drained_over_a_restart_until_it_is_resumed(
        self, tmp_path: Path
    ) -> None:
        async with running_server(tmp_path) as first:
            await prepare(first)
            await coordinator(first).DrainCoordinator(user_service_pb2.DrainCoordinatorRequest())
        async with running_server(tmp_path) as second:
            second.planner.works.append(OTHER_ROUND)
            assert not (await acquire(second, "idle")).HasField("lease")
            request = user_service_pb2.ResumeCoordinatorRequest()
            found = (await coordinator(second).ResumeCoordinator(request)).coordinator
            assert not found.draining
            assert (await acquire(second, "idle")).HasField("lease")

    async def test_a_stop_with_time_to_drain_waits_for_rounds(self, server: Server) -> None:
        finishing = asyncio.create_task(server.core.drain.finish(PATIENCE_S, asyncio.Event()))
        await asyncio.sleep(0)
        assert not (await acquire(server, "idle")).HasField("lease")
        assert not finishing.done()
        await complete(server)
        async with asyncio.timeout(PATIENCE_S):
            await finishing
        assert not server.core.store.is_on("draining"), "the next start gives out work"

    async def test_the_wait_ends_in_time_and_by_a_second_signal(self, server: Server) -> None:
        hurry = asyncio.Event()
        async with asyncio.timeout(PATIENCE_S):
            await Drain(server.core.store, server.core.bus).finish(0.0, hurry)
            hurry.set()
            await Drain(server.core.store, server.core.bus).finish(3600.0, hurry)
        assert server.core.store.list_leases(states=[LeaseState.ACTIVE])

    async def test_an_idle_coordinator_with_time_to_drain_stops_at_once(
        self, tmp_path: Path
    ) -> None:
        stop = asyncio.Event()
        config = ServerConfig(tmp_path, "127.0.0.1:0", drain_s=3600.0)
        async with asyncio.timeout(PATIENCE_S):
            await serve(config, app.without_work, ready=lambda _: stop.set(), stop=stop)
