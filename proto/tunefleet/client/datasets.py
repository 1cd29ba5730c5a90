"""Datasets: trials as files, from a coordinator and to it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tunefleet.client import blobs
from tunefleet.client.campaign import Campaign
from tunefleet.client.connection import Connection
from tunefleet.client.values import Artifact
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import campaign_pb2, dataset_service_pb2, dataset_service_pb2_grpc

Activity = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is being done."""

EXPORT_DEADLINE_S = 4 * 3600.0
"""Writing a million trials takes a quarter of an hour on a quiet machine."""

DATABASE_FILES = ("database_workload.json", "database_tuning_record.json")
"""What MetaSchedule's JSONDatabase consists of."""

FORMATS = {
    "parquet": campaign_pb2.DATASET_FORMAT_PARQUET,
    "metaschedule": campaign_pb2.DATASET_FORMAT_METASCHEDULE,
}


@dataclass(frozen=True)
class DatasetGroup:
    """Trials that have something in common. Latencies are seconds of one run."""

    name: str
    trials: int
    measured: int
    """Trials that have a latency."""
    workloads: int
    fastest_s: float | None
    slowest_s: float | None


@dataclass(frozen=True)
class DatasetDevice:
    """Trials of one hardware."""

    device_id: str
    name: str
    fingerprint: str
    cpu_model: str
    trials: int
    workloads: int


@dataclass(frozen=True)
class DatasetStats:
    """Counts of a dataset."""

    trials: int
    measured: int
    featured: int
    """Trials that have features."""
    workloads: int
    fastest_s: float | None
    slowest_s: float | None
    verdicts: Mapping[str, int]
    targets: tuple[DatasetGroup, ...]
    """By canonical target."""
    sources: tuple[DatasetGroup, ...]
    """By network or family; a workload of several counts in each."""
    devices: tuple[DatasetDevice, ...]

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> DatasetStats:
        """Read what a job of the coordinator's counted."""
        plain = {f: raw[f] for f in _PLAIN}
        return cls(
            **plain,
            verdicts=raw["verdicts"],
            targets=tuple(DatasetGroup(**g) for g in raw["targets"]),
            sources=tuple(DatasetGroup(**g) for g in raw["sources"]),
            devices=tuple(DatasetDevice(**d) for d in raw["devices"]),
        )


_PLAIN = ("trials", "measured", "featured", "workloads", "fastest_s", "slowest_s")


@dataclass(frozen=True)
class ExportedDataset:
    """A dataset that was written and fetched."""

    files: tuple[Path, ...]
    stats: DatasetStats


@dataclass(frozen=True)
class Selection:
    """Which trials are meant; nothing stands for any."""

    campaigns: Sequence[str] = ()
    """By id, an unambiguous beginning of it, or name."""
    targets: Sequence[str] = ()
    devices: Sequence[str] = ()
    """By name or id."""

    def to_proto(self) -> dataset_service_pb2.TrialSelection:
        """Make a message of it."""
        return dataset_service_pb2.TrialSelection(
            campaigns=self.campaigns, targets=self.targets, devices=self.devices
        )


def stats(connection: Connection, selection: Selection) -> DatasetStats:
    """Count stored trials."""
    stub = dataset_service_pb2_grpc.DatasetServiceStub(connection.channel)
    request = dataset_service_pb2.GetDatasetStatsRequest(selection=selection.to_proto())
    return stats_from_proto(connection.call(stub.GetDatasetStats, request).stats)


def export(
    connection: Connection,
    folder: Path,
    request: dataset_service_pb2.ExportDatasetRequest,
    activity: Activity | None = None,
    progress: blobs.Progress | None = None,
) -> ExportedDataset:
    """Have trials written and fetch the files.

    Raises:
        TuneFleetError: the reason that the coordinator gave.
    """
    stub = dataset_service_pb2_grpc.DatasetServiceStub(connection.channel)
    last = dataset_service_pb2.ExportDatasetResponse()
    stream = stub.ExportDataset(request, timeout=EXPORT_DEADLINE_S)
    try:
        for last in stream:
            if activity is not None:
                activity(last.progress, last.activity)
    except grpc.RpcError as e:
        raise connection.error(e) from e
    finally:
        stream.cancel()  # type: ignore[no-untyped-call]
    files = tuple(Artifact(f.path, f.digest, f.size_bytes) for f in last.files)
    paths = blobs.download(connection, files, folder, progress)
    return ExportedDataset(tuple(paths), stats_from_proto(last.stats))


def checked_format(name: str) -> campaign_pb2.DatasetFormat.ValueType:
    """Return the format of that name. Raises INVALID_ARGUMENT."""
    if name not in FORMATS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{name!r} is no format of datasets; there are {', '.join(FORMATS)}",
        )
    return FORMATS[name]


def files_of(place: Path, dataset_format: str) -> list[Path]:
    """Find a dataset's files.

    Raises:
        TuneFleetError: DATASET_INVALID, there are none; INVALID_ARGUMENT, the format is not known.
    """
    checked_format(dataset_format)
    if dataset_format == "metaschedule":
        files = [place / name for name in DATABASE_FILES]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise TuneFleetError(
                Reason.DATASET_INVALID,
                f"{place} is no MetaSchedule database: it has no {' and no '.join(missing)}",
                hint="Give the folder that MetaSchedule wrote its JSONDatabase to.",
            )
        return files
    files = [place] if place.is_file() else sorted(place.glob("*.parquet"))
    if not files:
        raise TuneFleetError(Reason.DATASET_INVALID, f"there is no Parquet file in {place}")
    return files


def upload(
    connection: Connection, files: Sequence[Path], progress: blobs.Progress | None = None
) -> list[campaign_pb2.Artifact]:
    """Store a dataset's files as blobs.

    Raises:
        TuneFleetError: the reason that the coordinator gave.
    """
    sizes = [path.stat().st_size for path in files]
    artifacts = []
    for index, path in enumerate(files):
        before = sum(sizes[:index])

        def advance(done: int, _: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(sizes))

        digest = blobs.upload(connection, path, advance)
        artifacts.append(
            campaign_pb2.Artifact(path=path.name, digest=digest, size_bytes=sizes[index])
        )
    return artifacts


def stats_from_proto(message: dataset_service_pb2.DatasetStats) -> DatasetStats:
    """Read counts."""
    total = _group(message.total)
    return DatasetStats(
        trials=total.trials,
        measured=total.measured,
        featured=message.featured,
        workloads=total.workloads,
        fastest_s=total.fastest_s,
        slowest_s=total.slowest_s,
        verdicts=dict(sorted(message.verdicts.items(), key=lambda item: (-item[1], item[0]))),
        targets=tuple(_group(g) for g in message.targets),
        sources=tuple(_group(g) for g in message.sources),
        devices=tuple(
            DatasetDevice(d.device_id, d.name, d.fingerprint, d.cpu_model, d.trials, d.workloads)
            for d in message.devices
        ),
    )


def _group(message: dataset_service_pb2.DatasetGroup) -> DatasetGroup:
    return DatasetGroup(
        name=message.name,
        trials=message.trials,
        measured=message.measured,
        workloads=message.workloads,
        fastest_s=message.fastest_s if message.HasField("fastest_s") else None,
        slowest_s=message.slowest_s if message.HasField("slowest_s") else None,
    )


def import_result(campaign: Campaign) -> dict[str, Any]:
    """Fetch what came of an import.

    Returns:
        Counts of ``new``, ``known`` and ``rejected`` trials, ``refusals`` by reason, the
        ``rejected_names``, trials left ``unfeatured``, and ``stats``.

    Raises:
        TuneFleetError: CAMPAIGN_STATE, it has not ended yet.
    """
    return artifact_json(campaign, "import.json")


def replay_result(campaign: Campaign) -> dict[str, Any]:
    """Fetch what came of a replay.

    Returns:
        ``groups``, one for each target and hardware, with ``median_ratio`` (after over before),
        ``share_within_5_percent``, ``kendall_tau``, ``verdicts`` and the same of each task.

    Raises:
        TuneFleetError: CAMPAIGN_STATE, it has not ended yet.
    """
    return artifact_json(campaign, "replay.json")


def imported_trials(campaign: Campaign) -> list[str]:
    """Fetch the names that the records of an imported MetaSchedule database have as trials.

    Raises:
        TuneFleetError: CAMPAIGN_STATE, it has not ended yet.
    """
    return _fetched(campaign, "trials.txt").split()


def artifact_json(campaign: Campaign, name: str) -> dict[str, Any]:
    """Fetch one of a campaign's results, a JSON object. Raises CAMPAIGN_STATE."""
    result: dict[str, Any] = json.loads(_fetched(campaign, name))
    return result


def _fetched(campaign: Campaign, name: str) -> str:
    with tempfile.TemporaryDirectory(prefix="tunefleet-result-") as folder:
        campaign.download(folder)
        return (Path(folder) / name).read_text()
