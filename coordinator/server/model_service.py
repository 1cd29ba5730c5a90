"""What users ask of versions of the cost model."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from coordinator.server.messages import model_message
from coordinator.state.store import Store
from tunefleet.v1 import user_service_pb2 as pb
from tunefleet.v1 import user_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class ModelService(user_service_pb2_grpc.ModelServiceServicer):
    """Shows versions of the cost model."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def ListModelVersions(
        self, request: pb.ListModelVersionsRequest, context: _Context
    ) -> pb.ListModelVersionsResponse:
        """Return all versions, newest first."""
        versions = await asyncio.to_thread(self._store.list_model_versions)
        current = await self._current()
        return pb.ListModelVersionsResponse(
            versions=[model_message(version, current) for version in versions]
        )

    async def GetModelVersion(
        self, request: pb.GetModelVersionRequest, context: _Context
    ) -> pb.GetModelVersionResponse:
        """Return one version."""
        version = await asyncio.to_thread(self._store.get_model_version, request.version)
        current = await self._current()
        return pb.GetModelVersionResponse(model_version=model_message(version, current))

    async def _current(self) -> str:
        model = await asyncio.to_thread(self._store.current_model)
        return "" if model is None else model.version
