"""What users ask of stored trials as a whole."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import structlog

from coordinator.dataset.exporting import Exported, Exporter
from coordinator.server.dataset_creation import FORMATS
from coordinator.server.limits import MAX_DESCRIPTION_CHARS, MAX_TRIALS_PER_TASK
from coordinator.state.records import DatasetFormat
from coordinator.state.trial_records import TrialFilter
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import campaign_pb2, dataset_service_pb2_grpc
from tunefleet.v1 import dataset_service_pb2 as pb

log = structlog.get_logger()

_Context = grpc.aio.ServicerContext[Any, Any]


class DatasetService(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Counts and exports stored trials."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    async def GetDatasetStats(
        self, request: pb.GetDatasetStatsRequest, context: _Context
    ) -> pb.GetDatasetStatsResponse:
        """Count trials."""
        chosen = await self._choose(request.selection)
        stats = await asyncio.to_thread(self._exporter.stats, chosen)
        return pb.GetDatasetStatsResponse(stats=stats_message(stats))

    async def ExportDataset(
        self, request: pb.ExportDatasetRequest, context: _Context
    ) -> AsyncIterator[pb.ExportDatasetResponse]:
        """Export trials; the work ends when the caller leaves."""
        if len(request.licence) + len(request.description) > MAX_DESCRIPTION_CHARS:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"licence and description may have {MAX_DESCRIPTION_CHARS} characters together",
            )
        kind = FORMATS.get(request.format)
        if kind is None or not 0 <= request.best <= MAX_TRIALS_PER_TASK:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"the format {request.format} is not known, or {request.best} schedules are too "
                "many or too few",
            )
        chosen = await self._choose(request.selection)
        if kind is DatasetFormat.METASCHEDULE and not (
            len(chosen.device_ids) == len(chosen.targets) == 1
        ):
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                "a MetaSchedule database does not keep devices and targets apart: name one of "
                "each with --device and --target",
            )
        options = {
            "format": kind,
            "best": request.best,
            "features": not request.without_features,
            "licence": request.licence,
            "description": request.description,
        }
        told: asyncio.Queue[pb.ExportDatasetResponse | None] = asyncio.Queue()

        def tell(share: float, activity: str) -> None:
            told.put_nowait(pb.ExportDatasetResponse(progress=share, activity=activity))

        work = asyncio.create_task(self._exporter.export(chosen, options, tell))
        work.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (response := await told.get()) is not None:
                yield response
            yield _exported_message(work.result())
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _choose(self, selection: pb.TrialSelection) -> TrialFilter:
        return await asyncio.to_thread(
            self._exporter.choose, selection.campaigns, selection.targets, selection.devices
        )


def stats_message(stats: Mapping[str, Any]) -> pb.DatasetStats:
    """Make a message of counts as :mod:`coordinator.dataset.stats` makes them."""
    total = {
        name: stats[name] for name in ("trials", "measured", "workloads", "fastest_s", "slowest_s")
    }
    return pb.DatasetStats(
        total=pb.DatasetGroup(**total),
        featured=stats["featured"],
        verdicts=stats["verdicts"],
        targets=[pb.DatasetGroup(**group) for group in stats["targets"]],
        sources=[pb.DatasetGroup(**group) for group in stats["sources"]],
        devices=[pb.DatasetDevice(**device) for device in stats["devices"]],
    )


def _exported_message(exported: Exported) -> pb.ExportDatasetResponse:
    return pb.ExportDatasetResponse(
        progress=1.0,
        files=[
            campaign_pb2.Artifact(path=f.path, digest=f.digest, size_bytes=f.size_bytes)
            for f in exported.files
        ],
        stats=stats_message(exported.stats),
    )
