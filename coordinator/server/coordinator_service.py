"""What users ask of the coordinator itself."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from coordinator.server.compatibility import tvm_version
from coordinator.server.draining import Drain
from coordinator.server.quota import BlobQuota
from coordinator.state.store import Store
from tunefleet import __version__, protocol
from tunefleet.features import schema_digest
from tunefleet.v1 import user_service_pb2 as pb
from tunefleet.v1 import user_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class CoordinatorService(user_service_pb2_grpc.CoordinatorServiceServicer):
    """Tells what the coordinator is and does, and drains it."""

    def __init__(self, store: Store, drain: Drain, quota: BlobQuota) -> None:
        self._store = store
        self._drain = drain
        self._quota = quota

    async def GetCoordinator(
        self, request: pb.GetCoordinatorRequest, context: _Context
    ) -> pb.GetCoordinatorResponse:
        """Return what it is and does."""
        return pb.GetCoordinatorResponse(coordinator=await asyncio.to_thread(self._message))

    async def DrainCoordinator(
        self, request: pb.DrainCoordinatorRequest, context: _Context
    ) -> pb.DrainCoordinatorResponse:
        """Give out no more work until further notice, restarts included."""
        await self._drain.switch(on=True)
        return pb.DrainCoordinatorResponse(coordinator=await asyncio.to_thread(self._message))

    async def ResumeCoordinator(
        self, request: pb.ResumeCoordinatorRequest, context: _Context
    ) -> pb.ResumeCoordinatorResponse:
        """Give out work again."""
        await self._drain.switch(on=False)
        return pb.ResumeCoordinatorResponse(coordinator=await asyncio.to_thread(self._message))

    def _message(self) -> pb.Coordinator:
        active = self._drain.active()
        busy = {lease.device_id for lease in active}
        names = [d.name for d in self._store.list_devices() if d.device_id in busy] if busy else []
        return pb.Coordinator(
            version=__version__,
            min_protocol=protocol.SPOKEN.oldest,
            max_protocol=protocol.SPOKEN.newest,
            tvm_version=tvm_version(),
            feature_schema=schema_digest(),
            draining=self._drain.on,
            active_leases=len(active),
            busy_devices=names,
            blob_bytes=self._quota.used_bytes(),
            blob_quota_bytes=self._quota.limit_bytes,
        )
