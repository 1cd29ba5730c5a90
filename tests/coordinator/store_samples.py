"""Records that tests of the coordinator store and read back."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from coordinator.state.records import (
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DeviceRecord,
    LeaseKind,
    LeaseRecord,
    ModelVersionRecord,
    TaskKey,
    TaskRecord,
)
from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import PROGRAM_FEATURES_PER_STORE, schema_digest
from tunefleet.trials import ProgramFeatures, Trial, Verdict, trial_id

TARGET = '{"kind":"llvm","mcpu":"znver4","num-cores":2}'
NOW = 1_800_000_000.0

PROFILE = DeviceProfile(
    arch="x86_64",
    cpu_model="Some CPU",
    isa_features=("avx2", "fma"),
    simd_bits=256,
    logical_cores=2,
    memory_bytes=8 * 2**30,
    measured=MeasuredProfile(gflops_single_core=50.0),
)
UNMEASURED = replace(PROFILE, measured=None)


def device(name: str = "pi4", **changes: object) -> DeviceRecord:
    """Make a device whose id is derived from its name."""
    record = DeviceRecord(f"id-{name}", name, PROFILE, TARGET, {"site": "lab"}, "0.1.0", NOW)
    return replace(record, **changes)  # type: ignore[arg-type]


FINGERPRINT = PROFILE.fingerprint()
KEY = TaskKey("00000000000000aa", TARGET, FINGERPRINT)
OTHER_KEY = TaskKey("00000000000000bb", TARGET, FINGERPRINT)


def campaign(
    campaign_id: str = "c-1", name: str = "squeezenet", **changes: object
) -> CampaignRecord:
    """Make a campaign that is tuning."""
    spec = CampaignSpec(name, "0" * 64, "squeezenet.onnx", shapes={"data": (1, 3, 224, 224)})
    record = CampaignRecord(campaign_id, spec, CampaignState.TUNING, NOW)
    return replace(record, **changes)  # type: ignore[arg-type]


def task(key: TaskKey = KEY, name: str = "conv2d") -> TaskRecord:
    """Make a task."""
    return TaskRecord(key, name, weight=3, flops=1e9, workload_digest="1" * 64)


def lease(
    lease_id: str = "l-1", token: int = 1, device_id: str = "id-pi4", **changes: object
) -> LeaseRecord:
    """Make a lease on a round of the first task."""
    record = LeaseRecord(
        lease_id=lease_id,
        fencing_token=token,
        device_id=device_id,
        campaign_id="c-1",
        kind=LeaseKind.ROUND,
        target=KEY.target,
        fingerprint=KEY.fingerprint,
        workload=KEY.workload,
        message=b"work",
        expires_at_unix_s=NOW + 60,
        granted_at_unix_s=NOW,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def trial(number: int, lease_id: str = "l-1", **changes: object) -> Trial:
    """Make a trial whose latency in milliseconds is its number."""
    candidate = f"{number:016x}"
    latency = number / 1000
    record = Trial(
        trial_id=trial_id(lease_id, candidate, 0),
        lease_id=lease_id,
        candidate=candidate,
        trace=f'[[["Primitive{number}",[],[],[]]],[]]',
        verdict=Verdict.OK,
        samples_s=(latency, latency * 1.1, latency * 0.9),
        features=features(number),
        predicted=float(-number),
        model_version="v1",
        started_at_unix_s=NOW,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def features(number: int, stores: int = 2) -> ProgramFeatures:
    """Make features of which every value is the number."""
    count = stores * PROGRAM_FEATURES_PER_STORE
    return ProgramFeatures(stores, struct.pack(f"<{count}f", *[float(number)] * count))


def model(version: str, promoted: bool = True) -> ModelVersionRecord:
    """Make a model version."""
    return ModelVersionRecord(
        version=version,
        parent="",
        digest="2" * 64,
        checkpoint_digest="3" * 64,
        feature_schema=schema_digest(),
        promoted=promoted,
        why="first",
        metrics={"pca": 0.8, "top_1": float("nan")},
        trials=100,
        created_at_unix_s=NOW,
        training_s=12.5,
    )


def reason_of(raised: pytest.ExceptionInfo[TuneFleetError]) -> Reason:
    """Return why a store refused."""
    return raised.value.reason
