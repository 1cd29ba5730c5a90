"""What users ask of versions of the cost model."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from coordinator.costmodel.registry import ModelRegistry
from coordinator.jobs import Progress
from coordinator.server.limits import MAX_MODEL_DESCRIPTION_CHARS
from coordinator.server.messages import model_message
from coordinator.state.blobs import BlobStore
from coordinator.state.records import ModelVersionRecord
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.model_files import CHECKPOINT_FILE, ONNX_FILE
from tunefleet.v1 import campaign_pb2, user_service_pb2_grpc
from tunefleet.v1 import user_service_pb2 as pb

_Context = grpc.aio.ServicerContext[Any, Any]


class ModelService(user_service_pb2_grpc.ModelServiceServicer):
    """Shows versions of the cost model, and changes which of them is in use."""

    def __init__(self, store: Store, blobs: BlobStore, registry: ModelRegistry) -> None:
        self._store = store
        self._blobs = blobs
        self._registry = registry

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
        return pb.GetModelVersionResponse(
            model_version=await self._message(version),
            files=[
                campaign_pb2.Artifact(path=name, digest=digest, size_bytes=self._blobs.size(digest))
                for name, digest in (
                    (ONNX_FILE, version.digest),
                    (CHECKPOINT_FILE, version.checkpoint_digest),
                )
                # What is lost shows when it is fetched; figures can be looked at all the same.
                if self._blobs.has(digest)
            ],
        )

    async def UploadModelVersion(
        self, request: pb.UploadModelVersionRequest, context: _Context
    ) -> AsyncIterator[pb.UploadModelVersionResponse]:
        """Check a model and add it as a version."""
        said = request.description
        if len(said) > MAX_MODEL_DESCRIPTION_CHARS or not (said.isprintable() or not said):
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"a description is one line of {MAX_MODEL_DESCRIPTION_CHARS} characters or fewer",
            )

        async def upload(progress: Progress) -> ModelVersionRecord:
            return await self._registry.upload(
                request.digest, request.checkpoint_digest, said, progress
            )

        async with aclosing(_followed(upload)) as steps:
            async for share, activity, version in steps:
                yield pb.UploadModelVersionResponse(
                    progress=share,
                    activity=activity,
                    model_version=None if version is None else await self._message(version),
                )

    async def PromoteModelVersion(
        self, request: pb.PromoteModelVersionRequest, context: _Context
    ) -> AsyncIterator[pb.PromoteModelVersionResponse]:
        """Judge a version and put it in use."""

        async def promote(progress: Progress) -> ModelVersionRecord:
            return await self._registry.promote(
                request.version, force=request.force, progress=progress
            )

        async with aclosing(_followed(promote)) as steps:
            async for share, activity, version in steps:
                yield pb.PromoteModelVersionResponse(
                    progress=share,
                    activity=activity,
                    model_version=None if version is None else await self._message(version),
                )

    async def RollbackModelVersion(
        self, request: pb.RollbackModelVersionRequest, context: _Context
    ) -> pb.RollbackModelVersionResponse:
        """Take the current version out of use."""
        version = await self._registry.roll_back(request.version)
        return pb.RollbackModelVersionResponse(model_version=await self._message(version))

    async def _message(self, version: ModelVersionRecord) -> pb.ModelVersion:
        return model_message(version, await self._current())

    async def _current(self) -> str:
        model = await asyncio.to_thread(self._store.current_model)
        return "" if model is None else model.version


async def _followed(
    work: Callable[[Progress], Awaitable[ModelVersionRecord]],
) -> AsyncGenerator[tuple[float, str, ModelVersionRecord | None], None]:
    """Yield how far some work is, and at the end what it made; it ends when the caller leaves."""
    told: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(lambda share, activity: told.put_nowait((share, activity))))
    task.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (step := await told.get()) is not None:
            yield *step, None
        yield 1.0, "", task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
