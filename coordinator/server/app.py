"""Puts the server together and runs it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator.costmodel.base_model import base_folder
from coordinator.costmodel.registry import ModelRegistry
from coordinator.dataset.exporting import Exporter
from coordinator.server import limits
from coordinator.server.address import DEFAULT_LISTEN, join_address, loopback_address
from coordinator.server.agent_service import AgentService
from coordinator.server.blob_service import BlobService
from coordinator.server.bus import Bus
from coordinator.server.campaign_service import CampaignService
from coordinator.server.compatibility import VersionInterceptor
from coordinator.server.coordinator_service import CoordinatorService
from coordinator.server.dataset_service import DatasetService
from coordinator.server.device_service import DeviceService
from coordinator.server.disk import DiskGuard
from coordinator.server.draining import Drain
from coordinator.server.errors import ErrorInterceptor
from coordinator.server.model_service import ModelService
from coordinator.server.outboxes import Outboxes
from coordinator.server.patience import PatienceInterceptor
from coordinator.server.ports import NoWork, Planner
from coordinator.server.throttling import ThrottlingInterceptor
from coordinator.server.upkeep import Upkeep
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet import __version__
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    dataset_service_pb2,
    dataset_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)

log = structlog.get_logger()

_OPTIONS: tuple[tuple[str, int], ...] = (
    # Two servers could bind the same port otherwise, and share its connections.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", limits.MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", limits.KEEPALIVE_TIME_MS),
    ("grpc.keepalive_timeout_ms", limits.KEEPALIVE_TIMEOUT_MS),
    # It overrides the former, and is a minute by default.
    ("grpc.http2.ping_timeout_ms", limits.KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", limits.MIN_CLIENT_PING_INTERVAL_MS),
    ("grpc.max_concurrent_streams", limits.STREAMS_A_CONNECTION),
    ("grpc.server_handshake_timeout_ms", limits.HANDSHAKE_LIMIT_MS),
    ("grpc.max_connection_age_ms", limits.CONNECTION_AGE_MS),
    ("grpc.max_connection_age_grace_ms", limits.CONNECTION_AGE_GRACE_MS),
)

_SERVICES = tuple(
    service.full_name
    for module in (agent_service_pb2, blob_service_pb2, dataset_service_pb2, user_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)


@dataclass(frozen=True)
class ServerConfig:
    """What a coordinator must be told."""

    home: Path
    listen: str = DEFAULT_LISTEN
    database_url: str = ""
    """Database in place of the home's own."""
    base_model: Path | None = field(default_factory=base_folder)
    """Folder of the cost model that a new home begins with; ``None`` for none."""
    drain_s: float = 0.0
    """Longest time to wait, when it is stopped, for rounds under way, in seconds."""


@dataclass(frozen=True)
class Core:
    """What everything in the coordinator's main process shares."""

    home: Home
    store: Store
    blobs: BlobStore
    bus: Bus
    clock: Callable[[], float] = time.time
    database_url: str = ""
    """The store's database, for jobs that open it themselves."""
    base_model: Path | None = field(default_factory=base_folder)
    """Folder of the cost model to begin with, if any."""

    @cached_property
    def disk(self) -> DiskGuard:
        """What says whether there is room for new work."""
        return DiskGuard(self.home.root)

    @cached_property
    def drain(self) -> Drain:
        """What says whether work is given out."""
        return Drain(self.store, self.bus)


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
    host, port = loopback_address(config.listen)
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
        )
        wiring = wire(core)
        health_service = health.aio.HealthServicer()  # type: ignore[attr-defined]
        server = _make_server(core, wiring.planner, health_service)
        address = join_address(host, _bind(server, host, port))
        tasks = [Upkeep(store, core.bus, core.clock).run, *wiring.background]
        await server.start()
        for name in ("", *_SERVICES):
            await health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
        _write_atomically(home.address_file, address)
        stack.callback(home.address_file.unlink, missing_ok=True)
        log.info("listening", address=address, home=str(home.root), version=__version__)
        if ready is not None:
            ready(address)
        try:
            await _run_until(_stopped(config, core.drain, stop, hurry), tasks)
        finally:
            log.info("stopping")
            core.bus.stop()
            await health_service.enter_graceful_shutdown()
            await server.stop(limits.STOP_GRACE_S)


def _make_server(
    core: Core, planner: Planner, health_service: health_pb2_grpc.HealthServicer
) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=_interceptors(), options=_OPTIONS)
    outboxes = Outboxes()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(
        AgentService(
            core.store,
            planner,
            core.bus,
            disk=core.disk,
            drain=core.drain,
            outboxes=outboxes,
            clock=core.clock,
        ),
        server,
    )
    blob_service_pb2_grpc.add_BlobServiceServicer_to_server(
        BlobService(core.blobs, core.disk), server
    )
    user_service_pb2_grpc.add_CampaignServiceServicer_to_server(
        CampaignService(core.store, core.blobs, core.bus, core.disk, core.clock), server
    )
    user_service_pb2_grpc.add_DeviceServiceServicer_to_server(
        DeviceService(core.store, core.bus, outboxes, core.clock), server
    )
    user_service_pb2_grpc.add_CoordinatorServiceServicer_to_server(
        CoordinatorService(core.store, core.drain), server
    )
    registry = ModelRegistry(core.store, core.blobs, core.home, core.clock)
    user_service_pb2_grpc.add_ModelServiceServicer_to_server(
        ModelService(core.store, core.blobs, registry), server
    )
    exporter = Exporter(core.store, core.blobs, core.home, core.database_url)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetService(exporter), server)
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    reflection.enable_server_reflection(
        (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def _interceptors() -> list[grpc.aio.ServerInterceptor]:  # type: ignore[type-arg]
    """Make what every call passes through, from the outside to the inside."""
    return [
        PatienceInterceptor(),
        ErrorInterceptor(),
        ThrottlingInterceptor(),
        VersionInterceptor(),
    ]


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(join_address(host, port))
    except RuntimeError as e:
        raise TuneFleetError(
            Reason.ADDRESS_IN_USE, f"cannot listen on {join_address(host, port)}: it is in use"
        ) from e


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
