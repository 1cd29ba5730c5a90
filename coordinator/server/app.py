"""Puts the server together and runs it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.costmodel.registry import ModelRegistry
from coordinator.dataset.exporting import Exporter
from coordinator.server import limits
from coordinator.server.address import join_address, listen_address
from coordinator.server.agents.service import AgentService
from coordinator.server.agents.vitals import LatestVitals
from coordinator.server.blob_service import BlobService
from coordinator.server.bus import Bus
from coordinator.server.campaign_service import CampaignService
from coordinator.server.cleaning import Cleaning
from coordinator.server.coordinator_service import CoordinatorService
from coordinator.server.core import Core, ServerConfig
from coordinator.server.dataset_service import DatasetService
from coordinator.server.device_service import DeviceService
from coordinator.server.draining import Drain
from coordinator.server.garbage import collect_garbage
from coordinator.server.gate import Gate, bind
from coordinator.server.identity_service import IdentityService
from coordinator.server.model_service import ModelService
from coordinator.server.ports import NoWork, Planner
from coordinator.server.upkeep import Upkeep
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from tunefleet import __version__
from tunefleet.identity.credentials import is_loopback
from tunefleet.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)

log = structlog.get_logger()

_SERVICES = tuple(
    service.full_name
    for module in (
        agent_service_pb2,
        blob_service_pb2,
        dataset_service_pb2,
        identity_service_pb2,
        user_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    if service.name != "EnrolmentService"
)

BackgroundTask = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Wiring:
    """What gives a server work to lease."""

    planner: Planner
    background: Sequence[BackgroundTask] = ()
    """Each is called once, runs until it is cancelled, and ends the server if it raises."""


def without_work(core: Core) -> Wiring:  # noqa: ARG001
    """Wire a coordinator that only keeps state."""
    return Wiring(NoWork())


async def serve(
    config: ServerConfig,
    wire: Callable[[Core], Wiring] = without_work,
    *,
    ready: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    hurry: asyncio.Event | None = None,
) -> None:
    """Run a coordinator until ``stop`` is set or a background task fails.

    Args:
        config: where it lives and listens.
        wire: called once the store is open, makes what plans and drives the work.
        ready: called with HOST:PORT once calls are answered.
        stop: set to stop gracefully.
        hurry: set to wait no longer for rounds under way.

    Raises:
        TuneFleetError: NOT_LOOPBACK, ADDRESS_IN_USE, HOME_IN_USE, INCOMPATIBLE,
            INVALID_ARGUMENT.
    """
    host, port = listen_address(config.listen, insecure=config.insecure)
    home = Home(config.home)
    with ExitStack() as stack:
        stack.enter_context(home.exclusive())
        database_url = config.database_url or home.database_url
        store = await asyncio.to_thread(open_store, database_url)
        stack.callback(store.close)
        blobs = BlobStore(home.blobs_dir)
        blobs.remove_leftovers()
        core = Core(
            home,
            store,
            blobs,
            Bus(),
            database_url=database_url,
            base_model=config.base_model,
            blob_quota=config.quota,
        )
        wiring = wire(core)
        gate = await asyncio.to_thread(Gate.open, core, insecure=config.insecure)
        health_service = health.aio.HealthServicer()  # type: ignore[attr-defined]
        server = gate.server()
        port = bind(server, host, port, gate.main_credentials())
        address = join_address(host, port)
        enrolment, enrolment_port = gate.enrolment(host, port, config)
        _add_services(server, core, wiring.planner)
        identities = IdentityService(
            gate.admission,
            gate.directory,
            store,
            enrolment_port,
            loopback_only=is_loopback(address),
            clock=core.clock,
        )
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(identities, server)
        health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
        stack.enter_context(gate.told(address))
        tasks = [
            Upkeep(store, core.bus, core.clock).run,
            Cleaning(store, core.uploads).run,
            collect_garbage,
            *wiring.background,
        ]
        try:
            await server.start()
            if enrolment is not None:
                await enrolment.start()
            for name in ("", *_SERVICES):
                await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
            _write_atomically(home.address_file, address)
            stack.callback(home.address_file.unlink, missing_ok=True)
            log.info(
                "listening",
                address=address,
                enrolment_port=enrolment_port or None,
                home=str(home.root),
                version=__version__,
            )
            if ready is not None:
                ready(address)
            await _run_until(_stopped(config, core.drain, stop, hurry), tasks)
        finally:
            log.info("stopping")
            core.bus.stop()
            await health_service.enter_graceful_shutdown()
            if enrolment is not None:
                await enrolment.stop(None)
            await server.stop(limits.STOP_GRACE_S)


def _add_services(server: grpc.aio.Server, core: Core, planner: Planner) -> None:
    vitals = LatestVitals()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(
        AgentService(
            core.store,
            planner,
            core.bus,
            disk=core.disk,
            drain=core.drain,
            vitals=vitals,
            calls=core.calls,
            clock=core.clock,
        ),
        server,
    )
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(
        BlobService(core.blobs, core.disk, core.store, quota=core.quota, uploads=core.uploads),
        server,
    )
    user_service_pb2_grpc.add_CampaignServiceServicer_to_server(
        CampaignService(
            core.store,
            core.blobs,
            core.bus,
            disk=core.disk,
            drain=core.drain,
            clock=core.clock,
        ),
        server,
    )
    user_service_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(core.store, core.bus, vitals, core.clock), server
    )
    user_service_pb2_grpc.add_CoordinatorServiceServicer_to_server(
        CoordinatorService(core.store, core.drain, core.quota), server
    )
    registry = ModelRegistry(core.store, core.blobs, core.home, core.clock)
    user_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(core.store, core.blobs, registry), server
    )
    exporter = Exporter(core.store, core.blobs, core.home, core.database_url)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetService(exporter), server)
    reflection.enable_server_reflection(
        (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )


def _write_atomically(path: Path, text: str) -> None:
    # Whoever reads it sees a whole address or none.
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(f"{text}\n")
    new.replace(path)


async def _stopped(
    config: ServerConfig, drain: Drain, stop: asyncio.Event | None, hurry: asyncio.Event | None
) -> None:
    await (stop or asyncio.Event()).wait()
    if config.drain_s > 0:
        await drain.finish(config.drain_s, hurry or asyncio.Event())


async def _run_until(stop: Coroutine[Any, Any, None], background: Sequence[BackgroundTask]) -> None:
    tasks = [asyncio.create_task(run()) for run in background]
    stopping = asyncio.create_task(stop)
    try:
        done, _ = await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in (stopping, *tasks):
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
