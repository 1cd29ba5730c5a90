"""Checks what a person asks to import or to replay."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from coordinator.server.limits import MAX_BLOB_BYTES, MAX_DATASET_FILES, MAX_TRIALS_PER_TASK
from coordinator.state.blobs import BlobStore
from coordinator.state.records import (
    ArtifactRecord,
    CampaignPurpose,
    CampaignSpec,
    DatasetFormat,
    DatasetSource,
    ReplaySource,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.targets import canonical_target
from tunefleet.v1 import campaign_pb2

FORMATS = {
    campaign_pb2.DATASET_FORMAT_PARQUET: DatasetFormat.PARQUET,
    campaign_pb2.DATASET_FORMAT_METASCHEDULE: DatasetFormat.METASCHEDULE,
}
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


def read_sources(message: campaign_pb2.CampaignSpec) -> dict[str, Any]:
    """Read what only an import or a replay has. Raises INVALID_ARGUMENT."""
    if message.purpose == campaign_pb2.CAMPAIGN_PURPOSE_IMPORT:
        if not message.HasField("dataset"):
            raise _invalid("an import needs a dataset")
        return {"purpose": CampaignPurpose.IMPORT, "dataset": _read_dataset(message.dataset)}
    options = message.replay
    if not options.campaign_id:
        raise _invalid("a replay needs a campaign whose schedules it measures again")
    for what, count in (("best", options.best), ("per_task", options.per_task)):
        if not 0 <= count <= MAX_TRIALS_PER_TASK:
            raise _invalid(f"{what} must be 0 to {MAX_TRIALS_PER_TASK}, not {count}")
    source = ReplaySource(options.campaign_id, options.best, options.per_task)
    return {"purpose": CampaignPurpose.REPLAY, "replay": source}


def resolve(spec: CampaignSpec, store: Store, blobs: BlobStore) -> CampaignSpec:
    """Look up what an import or a replay names.

    Raises:
        TuneFleetError: CAMPAIGN_UNKNOWN, DEVICE_UNKNOWN or BLOB_UNKNOWN.
    """
    if spec.replay is not None:
        campaign = store.get_campaign(spec.replay.campaign_id)
        return replace(spec, replay=replace(spec.replay, campaign_id=campaign.campaign_id))
    assert spec.dataset is not None
    for file in spec.dataset.files:
        blobs.path(file.digest)
    device_id = spec.dataset.device_id
    if device_id:
        device_id = store.get_device(device_id).device_id
    return replace(spec, dataset=replace(spec.dataset, device_id=device_id))


def _read_dataset(message: campaign_pb2.ImportSpec) -> DatasetSource:
    names = [file.path for file in message.files]
    if not 1 <= len(names) <= MAX_DATASET_FILES or len(set(names)) < len(names):
        raise _invalid(f"a dataset has 1 to {MAX_DATASET_FILES} files with different names")
    if not all(_FILE_NAME.fullmatch(name) for name in names):
        raise _invalid("the files of a dataset must have plain names")
    if not all(0 <= file.size_bytes <= MAX_BLOB_BYTES for file in message.files):
        raise _invalid(f"a file of a dataset has up to {MAX_BLOB_BYTES} bytes")
    kind = FORMATS.get(message.format)
    if kind is None:
        raise _invalid(f"the dataset format {message.format} is not known")
    if kind is DatasetFormat.METASCHEDULE and not (message.device and message.target):
        raise _invalid(
            "a MetaSchedule database does not say which device measured it, nor always for which "
            "target: name both with --device and --target"
        )
    if kind is DatasetFormat.PARQUET and (message.device or message.target):
        raise _invalid("a Parquet dataset says itself which devices measured it and for what")
    try:
        target = canonical_target(message.target) if message.target else ""
    except ValueError as e:
        raise _invalid(str(e)) from e
    return DatasetSource(
        files=tuple(ArtifactRecord(f.path, f.digest, f.size_bytes) for f in message.files),
        format=kind,
        device_id=message.device,
        target=target,
        featurize=message.featurize or kind is DatasetFormat.METASCHEDULE,
    )


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)
