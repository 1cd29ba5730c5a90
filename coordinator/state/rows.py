"""Records to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from isal import isal_zlib
from sqlalchemy import RowMapping, Text, type_coerce

from coordinator.state.records import (
    ArtifactRecord,
    BenchSource,
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DatasetFormat,
    DatasetSource,
    DeviceRecord,
    GroupRecord,
    LeaseKind,
    LeaseRecord,
    LeaseState,
    ModelVersionRecord,
    Quarantine,
    ReplaySource,
)
from coordinator.state.tables import campaigns
from tunefleet.devices import DeviceProfile
from tunefleet.leases import OpTime

_COMPRESSION = 1
"""Traces shrink to a third, and higher levels gain little. Of the library: it takes a third of the
time of Python's own for what is as small, and writes the same format."""

_CAMPAIGN_COLUMNS = {
    "created_at_unix_s": "created_at",
    "ended_at_unix_s": "ended_at",
    "tuning_since_unix_s": "tuning_since",
}
_LEASE_COLUMNS = {"granted_at_unix_s": "granted_at", "expires_at_unix_s": "expires_at"}


def pack(data: bytes) -> bytes:
    """Compress bytes that are stored a hundred thousand times."""
    return isal_zlib.compress(data, _COMPRESSION)


def unpack(data: bytes) -> bytes:
    """Undo :func:`pack`."""
    return isal_zlib.decompress(data)


def device_values(device: DeviceRecord) -> dict[str, Any]:
    """Return a device's columns, its count of trials excepted."""
    return {
        "device_id": device.device_id,
        "name": device.name,
        "profile": device.profile.to_json(),
        "fingerprint": device.fingerprint,
        "target": device.target,
        "labels": dict(device.labels),
        "agent_version": device.agent_version,
        "last_seen": device.last_seen_unix_s,
        "imported": device.imported,
        "protocol": device.protocol,
        "feature_schema": device.feature_schema,
        "capabilities": list(device.capabilities),
    }


def device_record(row: RowMapping) -> DeviceRecord:
    """Read a device."""
    return DeviceRecord(
        device_id=row["device_id"],
        name=row["name"],
        profile=_profile(row["profile"]),
        target=row["target"],
        labels=row["labels"],
        agent_version=row["agent_version"],
        last_seen_unix_s=row["last_seen"],
        trials=row["trials"],
        imported=row["imported"],
        quarantine=None if row["quarantine"] is None else Quarantine(**row["quarantine"]),
        draining=row["draining"],
        protocol=row["protocol"],
        feature_schema=row["feature_schema"],
        capabilities=tuple(row["capabilities"]),
    )


@lru_cache(maxsize=2048)
def _profile(text: str) -> DeviceProfile:
    # Read again and again, by whoever looks at all devices.
    return DeviceProfile.from_json(text)


def campaign_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns for fields of a CampaignRecord.

    Raises:
        TypeError: a name is no field that may change.
    """
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in CampaignRecord.__dataclass_fields__ or name == "campaign_id":
            raise TypeError(f"{name!r} is no field of a campaign that can change")
        if name == "spec":
            values["spec"] = asdict(value)
            values["name"] = value.name
        elif name in {"groups", "artifacts"}:
            values[name] = [asdict(item) for item in value]
        else:
            values[_CAMPAIGN_COLUMNS.get(name, name)] = value
    return values


CAMPAIGN_COLUMNS = tuple(
    type_coerce(column, Text).label(column.name) if column.name in {"spec", "groups"} else column
    for column in campaigns.c
)
"""What :func:`campaign_record` reads: the largest ones as text, which it may know already."""


def campaign_record(row: RowMapping) -> CampaignRecord:
    """Read a campaign."""
    fields = {
        name: row[_CAMPAIGN_COLUMNS.get(name, name)] for name in CampaignRecord.__dataclass_fields__
    }
    fields |= {
        "spec": _campaign_spec(row["spec"]),
        "state": CampaignState(row["state"]),
        "groups": _group_records(row["groups"]),
        "artifacts": tuple(ArtifactRecord(**artifact) for artifact in row["artifacts"]),
    }
    return CampaignRecord(**fields)


@lru_cache(maxsize=64)
def _group_records(text: str) -> tuple[GroupRecord, ...]:
    # A fleet has many, and whoever gives work to one device reads all of them.
    return tuple(_group_record(group) for group in json.loads(text))


@lru_cache(maxsize=64)
def _campaign_spec(text: str) -> CampaignSpec:
    stored: dict[str, Any] = json.loads(text)
    # Releases before 0.2 knew one target and one purpose, and used up every budget.
    target = stored.pop("target", "")
    return CampaignSpec(
        **stored
        | {
            "shapes": {name: tuple(dims) for name, dims in stored["shapes"].items()},
            "targets": tuple(stored.get("targets") or ([target] if target else [])),
            "families": tuple(stored.get("families", ())),
            "min_gain": stored.get("min_gain", 0.0),
            "purpose": CampaignPurpose(stored.get("purpose", CampaignPurpose.TUNE)),
            "dataset": _dataset_source(stored.get("dataset")),
            "replay": ReplaySource(**stored["replay"]) if stored.get("replay") else None,
            "bench": BenchSource(**stored["bench"]) if stored.get("bench") else None,
        }
    )


def _dataset_source(stored: dict[str, Any] | None) -> DatasetSource | None:
    if stored is None:
        return None
    files = tuple(ArtifactRecord(**file) for file in stored["files"])
    return DatasetSource(**stored | {"files": files, "format": DatasetFormat(stored["format"])})


def _group_record(stored: dict[str, Any]) -> GroupRecord:
    samples = {
        name: {subject: tuple(values) for subject, values in stored.get(name, {}).items()}
        for name in ("benchmark_s", "profiled_s", "between_s")
    }
    ops = {
        subject: tuple(OpTime(**op) for op in found)
        for subject, found in stored.get("ops", {}).items()
    }
    return GroupRecord(**stored | samples | {"ops": ops})


def lease_values(lease: LeaseRecord) -> dict[str, Any]:
    """Return a lease's columns."""
    values = {
        _LEASE_COLUMNS.get(name, name): getattr(lease, name)
        for name in LeaseRecord.__dataclass_fields__
    }
    return values | {"phase_seconds": dict(lease.phase_seconds)}


def lease_record(row: RowMapping) -> LeaseRecord:
    """Read a lease."""
    fields = {
        name: row[_LEASE_COLUMNS.get(name, name)] for name in LeaseRecord.__dataclass_fields__
    }
    fields |= {"kind": LeaseKind(row["kind"]), "state": LeaseState(row["state"])}
    return LeaseRecord(**fields)


def model_values(model: ModelVersionRecord) -> dict[str, Any]:
    """Return a model version's columns."""
    values = asdict(model)
    values["created_at"] = values.pop("created_at_unix_s")
    return values


def model_record(row: RowMapping) -> ModelVersionRecord:
    """Read a model version."""
    fields = {k: v for k, v in row.items() if k not in ("seq", "promotion")}
    fields["created_at_unix_s"] = fields.pop("created_at")
    return ModelVersionRecord(**fields)
