"""Records as users' messages."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from coordinator.server.agents.vitals import Vitals
from coordinator.server.limits import OFFLINE_AFTER_S
from coordinator.server.selectors import select
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DatasetSource,
    DeviceRecord,
    GroupRecord,
    ModelVersionRecord,
    TaskProgress,
)
from tunefleet.conversions import duration, profile_to_proto, timestamp
from tunefleet.v1 import campaign_pb2, device_pb2, user_service_pb2


def is_online(device: DeviceRecord, now: float) -> bool:
    """Return whether a device was heard of lately, and not before the clock was set back."""
    return abs(now - device.last_seen_unix_s) <= OFFLINE_AFTER_S


def device_message(
    device: DeviceRecord, now: float, vitals: Vitals, *, working: bool = False
) -> device_pb2.Device:
    """Make a message of a device.

    Args:
        device: what is stored of it.
        now: seconds since 1970.
        vitals: what its agent said last.
        working: whether it has work, which matters for one that is drained.
    """
    state = device_pb2.DEVICE_STATE_ONLINE if device.ready else device_pb2.DEVICE_STATE_PROFILING
    if device.is_quarantined(now):
        state = device_pb2.DEVICE_STATE_QUARANTINED
    if device.draining:
        state = device_pb2.DEVICE_STATE_DRAINING if working else device_pb2.DEVICE_STATE_DRAINED
    if not is_online(device, now):
        state = device_pb2.DEVICE_STATE_OFFLINE
    if device.imported:
        state = device_pb2.DEVICE_STATE_IMPORTED
    message = device_pb2.Device(
        device_id=device.device_id,
        name=device.name,
        fingerprint=device.fingerprint,
        profile=profile_to_proto(device.profile),
        labels=dict(device.labels),
        target=device.target,
        state=state,
        last_seen=timestamp(device.last_seen_unix_s),
        trials=device.trials,
        agent_version=device.agent_version,
        draining=device.draining,
        outbox_trials=vitals.outbox_trials,
        outbox_bytes=vitals.outbox_bytes,
        outbox_limit_bytes=vitals.outbox_limit_bytes,
        clock_offset_s=vitals.clock_offset_s,
    )
    if device.quarantine is not None:
        message.quarantine.reason = device.quarantine.reason
        message.quarantine.since.CopyFrom(timestamp(device.quarantine.since_unix_s))
        message.quarantine.until.CopyFrom(timestamp(device.quarantine.until_unix_s))
    return message


def model_message(model: ModelVersionRecord, current: str) -> user_service_pb2.ModelVersion:
    """Make a message of a model version; ``current`` names the one that agents rank with."""
    return user_service_pb2.ModelVersion(
        version=model.version,
        parent=model.parent,
        digest=model.digest,
        feature_schema=model.feature_schema,
        current=model.version == current,
        promoted=model.promoted,
        why=model.why,
        metrics=dict(model.metrics),
        trials=model.trials,
        created_at=timestamp(model.created_at_unix_s),
        training_time=duration(model.training_s),
        rolled_back=model.rolled_back,
    )


@dataclass(frozen=True)
class CampaignView:
    """A campaign with all that its message is made of."""

    campaign: CampaignRecord
    progress: Sequence[TaskProgress] = ()
    devices: Sequence[DeviceRecord] = ()
    """Every known device."""
    model_version: str = ""
    now: float = field(default=0.0)
    drained: bool = False
    """The coordinator gives out no work."""

    def of_group(self, group: GroupRecord) -> list[TaskProgress]:
        """Return the tasks of one group."""
        return [
            p
            for p in self.progress
            if (p.task.key.target, p.task.key.fingerprint) == (group.target, group.fingerprint)
        ]

    def tuning_s(self) -> float:
        """Return the seconds spent tuning so far."""
        return self.campaign.tuned_for_s(self.now)

    def eta_s(self) -> float | None:
        """Return the seconds that tuning is expected to go on, by the rate of trials so far."""
        if self.campaign.state is not CampaignState.TUNING:
            return None
        spent = self.tuning_s()
        limits = (
            []
            if self.campaign.spec.time_limit_s is None
            else [max(0.0, self.campaign.spec.time_limit_s - spent)]
        )
        groups = [self.of_group(group) for group in self.campaign.groups]
        made = [sum(p.trials for p in tasks) for tasks in groups]
        if made and all(made) and spent > 0:
            # Groups tune side by side: the slowest decides.
            limits.append(max(max(0, self.campaign.trials_wanted - m) * spent / m for m in made))
        return min(limits, default=None)


def campaign_message(view: CampaignView, *, with_tasks: bool = True) -> campaign_pb2.Campaign:
    """Make a message of a campaign."""
    campaign = view.campaign
    eta_s = view.eta_s()
    message = campaign_pb2.Campaign(
        campaign_id=campaign.campaign_id,
        spec=spec_message(campaign.spec),
        state=campaign_pb2.CampaignState.Value(f"CAMPAIGN_STATE_{campaign.state.name}"),
        created_at=timestamp(campaign.created_at_unix_s),
        targets=[_target_progress(view, group) for group in campaign.groups],
        tasks=[_task(progress) for progress in view.progress] if with_tasks else [],
        artifacts=[
            campaign_pb2.Artifact(path=a.path, digest=a.digest, size_bytes=a.size_bytes)
            for a in campaign.artifacts
        ],
        model_version=view.model_version,
        tuning_time=duration(view.tuning_s()),
        eta=None if eta_s is None else duration(eta_s),
        activity=campaign.activity or _waiting_for(view),
        artifact_dir=campaign.artifact_dir,
        tuning_ended=campaign.tuning_ended,
    )
    if campaign.ended_at_unix_s is not None:
        message.ended_at.CopyFrom(timestamp(campaign.ended_at_unix_s))
    if campaign.error_reason:
        message.error.reason = campaign.error_reason
        message.error.message = campaign.error_message
    return message


def _waiting_for(view: CampaignView) -> str:
    """Say why nothing moves where all devices of a campaign are kept from work."""
    if view.campaign.state is not CampaignState.TUNING:
        return ""
    if view.drained:
        return "no work is given out: `tunefleet drain --resume` ends that"
    chosen = [
        d
        for d in select(view.campaign.spec.device_selector, view.devices)
        if is_online(d, view.now)
    ]
    names = ", ".join(d.name for d in chosen)
    if chosen and all(d.draining for d in chosen):
        return f"waiting for {names}, drained: see `tunefleet devices undrain --help`"
    if not chosen or not all(d.is_quarantined(view.now) or d.draining for d in chosen):
        return ""
    return f"waiting for {names}, in quarantine: see `tunefleet devices show {chosen[0].name}`"


def spec_message(spec: CampaignSpec) -> campaign_pb2.CampaignSpec:
    """Make a message of what was asked for."""
    return campaign_pb2.CampaignSpec(
        name=spec.name,
        model_digest=spec.model_digest,
        model_filename=spec.model_filename,
        shapes={name: campaign_pb2.Shape(dims=dims) for name, dims in spec.shapes.items()},
        device_selector=spec.device_selector,
        targets=spec.targets,
        trials=spec.trials,
        time_limit=None if spec.time_limit_s is None else duration(spec.time_limit_s),
        min_gain=spec.min_gain,
        seed=spec.seed,
        purpose=campaign_pb2.CampaignPurpose.Value(f"CAMPAIGN_PURPOSE_{spec.purpose.name}"),
        families=spec.families,
        workloads=spec.workloads,
        trials_per_task=spec.trials_per_task,
        dataset=None if spec.dataset is None else _dataset(spec.dataset),
        replay=None if spec.replay is None else campaign_pb2.ReplayOptions(**asdict(spec.replay)),
        bench=None if spec.bench is None else campaign_pb2.BenchOptions(**asdict(spec.bench)),
    )


def _dataset(source: DatasetSource) -> campaign_pb2.ImportSpec:
    return campaign_pb2.ImportSpec(
        files=[campaign_pb2.Artifact(**asdict(file)) for file in source.files],
        format=campaign_pb2.DatasetFormat.Value(f"DATASET_FORMAT_{source.format.name}"),
        device=source.device_id,
        target=source.target,
        featurize=source.featurize,
    )


def _target_progress(view: CampaignView, group: GroupRecord) -> campaign_pb2.TargetProgress:
    tasks = view.of_group(group)
    spec = view.campaign.spec
    # A collection is of many networks, or of none.
    tunes = spec.purpose is CampaignPurpose.TUNE
    return campaign_pb2.TargetProgress(
        target=group.target,
        fingerprint=group.fingerprint,
        trials=sum(p.trials for p in tasks),
        trials_wanted=view.campaign.trials_wanted,
        estimated_latency_s=_weighted([(p.task.weight, p.best_s) for p in tasks])
        if tunes
        else None,
        estimated_baseline_s=_weighted([(p.task.weight, p.baseline_s) for p in tasks])
        if tunes
        else None,
        benchmark_s={
            subject: statistics.median(samples)
            for subject, samples in group.benchmark_s.items()
            if samples
        },
        max_abs_err=group.max_abs_err,
        benchmark_error=group.benchmark_error,
        devices=[
            device.name
            for device in select(spec.device_selector, view.devices)
            if device.fingerprint == group.fingerprint
            and group.target in spec.targets_for(device)
            and is_online(device, view.now)
        ],
    )


def _weighted(terms: Sequence[tuple[int, float | None]]) -> float | None:
    known = [weight * seconds for weight, seconds in terms if seconds is not None]
    return sum(known) if known and len(known) == len(terms) else None


def _task(progress: TaskProgress) -> campaign_pb2.Task:
    task = progress.task
    return campaign_pb2.Task(
        workload=task.key.workload,
        name=task.name,
        target=task.key.target,
        weight=task.weight,
        flops=task.flops,
        trials=progress.trials,
        measured_trials=progress.measured,
        baseline_s=progress.baseline_s,
        best_s=progress.best_s,
        exhausted=task.exhausted,
        fingerprint=task.key.fingerprint,
        sources=task.sources,
    )
