"""Reads the messages that users get into plain values."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from tunefleet.client.values import (
    Artifact,
    CampaignPurpose,
    CampaignState,
    CampaignStatus,
    Coordinator,
    Device,
    DeviceState,
    Failure,
    ModelVersion,
    Quarantine,
    TargetStatus,
    TaskStatus,
)
from tunefleet.conversions import profile_from_proto, seconds
from tunefleet.protocol import ProtocolRange
from tunefleet.v1 import campaign_pb2, device_pb2, user_service_pb2

_CAMPAIGN_STATES = {
    number: CampaignState(name.removeprefix("CAMPAIGN_STATE_").lower())
    for name, number in campaign_pb2.CampaignState.items()
}
_PURPOSES = {
    campaign_pb2.CAMPAIGN_PURPOSE_TUNE: CampaignPurpose.TUNE,
    campaign_pb2.CAMPAIGN_PURPOSE_COLLECT: CampaignPurpose.COLLECT,
    campaign_pb2.CAMPAIGN_PURPOSE_IMPORT: CampaignPurpose.IMPORT,
    campaign_pb2.CAMPAIGN_PURPOSE_REPLAY: CampaignPurpose.REPLAY,
    campaign_pb2.CAMPAIGN_PURPOSE_BENCH: CampaignPurpose.BENCH,
}
_DEVICE_STATES = {
    number: DeviceState(name.removeprefix("DEVICE_STATE_").lower())
    for name, number in device_pb2.DeviceState.items()
}


def campaign_from_proto(message: campaign_pb2.Campaign) -> CampaignStatus:
    """Read a campaign; a state that only a newer coordinator knows becomes ``UNSPECIFIED``."""
    spec = message.spec
    return CampaignStatus(
        campaign_id=message.campaign_id,
        name=spec.name,
        state=_CAMPAIGN_STATES.get(message.state, CampaignState.UNSPECIFIED),
        error=Failure(message.error.reason, message.error.message)
        if message.HasField("error")
        else None,
        activity=message.activity,
        model_filename=spec.model_filename,
        model_digest=spec.model_digest,
        shapes={name: tuple(shape.dims) for name, shape in sorted(spec.shapes.items())},
        device_selector=spec.device_selector,
        purpose=_PURPOSES.get(spec.purpose, CampaignPurpose.TUNE),
        targets_requested=tuple(spec.targets),
        families=tuple(spec.families),
        workloads=spec.workloads,
        trials_per_task=spec.trials_per_task,
        trials_requested=spec.trials,
        time_limit_s=seconds(spec.time_limit) if spec.HasField("time_limit") else None,
        min_gain=spec.min_gain,
        seed=spec.seed,
        created_at=_moment(message.created_at),
        ended_at=_moment(message.ended_at) if message.HasField("ended_at") else None,
        tuning_s=seconds(message.tuning_time),
        eta_s=seconds(message.eta) if message.HasField("eta") else None,
        model_version=message.model_version,
        targets=tuple(_target(t) for t in message.targets),
        tasks=tuple(_task(t) for t in message.tasks),
        artifacts=tuple(Artifact(a.path, a.digest, a.size_bytes) for a in message.artifacts),
        artifact_dir=message.artifact_dir,
        tuning_ended=message.tuning_ended,
    )


def device_from_proto(message: device_pb2.Device) -> Device:
    """Read a device.

    Raises:
        ValueError: its profile names no architecture or no core.
    """
    return Device(
        device_id=message.device_id,
        name=message.name,
        state=_DEVICE_STATES.get(message.state, DeviceState.UNSPECIFIED),
        fingerprint=message.fingerprint,
        target=message.target,
        labels=dict(sorted(message.labels.items())),
        trials=message.trials,
        last_seen=_moment(message.last_seen),
        agent_version=message.agent_version,
        profile=profile_from_proto(message.profile),
        quarantine=Quarantine(
            message.quarantine.reason,
            _moment(message.quarantine.since),
            _moment(message.quarantine.until),
        )
        if message.HasField("quarantine")
        else None,
        draining=message.draining,
        outbox_trials=message.outbox_trials,
        outbox_bytes=message.outbox_bytes,
        outbox_limit_bytes=message.outbox_limit_bytes,
        clock_offset_s=message.clock_offset_s if message.HasField("clock_offset_s") else None,
    )


def coordinator_from_proto(message: user_service_pb2.Coordinator) -> Coordinator:
    """Read what a coordinator says of itself."""
    return Coordinator(
        version=message.version,
        protocols=str(ProtocolRange.told(message.min_protocol, message.max_protocol)),
        tvm_version=message.tvm_version,
        feature_schema=message.feature_schema,
        draining=message.draining,
        active_leases=message.active_leases,
        busy_devices=tuple(message.busy_devices),
        blob_bytes=message.blob_bytes,
        blob_quota_bytes=message.blob_quota_bytes,
    )


def model_version_from_proto(message: user_service_pb2.ModelVersion) -> ModelVersion:
    """Read a version of the cost model."""
    return ModelVersion(
        version=message.version,
        parent=message.parent,
        current=message.current,
        promoted=message.promoted,
        why=message.why,
        metrics=dict(sorted(message.metrics.items())),
        trials=message.trials,
        created_at=_moment(message.created_at),
        training_s=seconds(message.training_time),
        digest=message.digest,
        feature_schema=message.feature_schema,
        rolled_back=message.rolled_back,
    )


def _target(message: campaign_pb2.TargetProgress) -> TargetStatus:
    return TargetStatus(
        target=message.target,
        fingerprint=message.fingerprint,
        devices=tuple(message.devices),
        trials=message.trials,
        trials_wanted=message.trials_wanted,
        estimated_latency_s=message.estimated_latency_s
        if message.HasField("estimated_latency_s")
        else None,
        estimated_baseline_s=message.estimated_baseline_s
        if message.HasField("estimated_baseline_s")
        else None,
        benchmark_s=dict(sorted(message.benchmark_s.items())),
        max_abs_err=message.max_abs_err if message.HasField("max_abs_err") else None,
        benchmark_error=message.benchmark_error,
    )


def _task(message: campaign_pb2.Task) -> TaskStatus:
    return TaskStatus(
        name=message.name,
        workload=message.workload,
        target=message.target,
        fingerprint=message.fingerprint,
        sources=dict(sorted(message.sources.items())),
        weight=message.weight,
        flops=message.flops,
        trials=message.trials,
        measured_trials=message.measured_trials,
        baseline_s=message.baseline_s if message.HasField("baseline_s") else None,
        best_s=message.best_s if message.HasField("best_s") else None,
        exhausted=message.exhausted,
    )


def _moment(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=UTC)
