"""What a coordinator tells its users, as plain values.

Field names are the keys of every ``--format json`` output, so renaming one breaks scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from tunefleet.client.wording import duration, factor, latency, short_target
from tunefleet.devices import DeviceProfile


class CampaignState(StrEnum):
    """Where a campaign is on its way."""

    UNSPECIFIED = "unspecified"
    IMPORTING = "importing"
    TUNING = "tuning"
    PAUSED = "paused"
    FINISHING = "finishing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing will happen to the campaign any more."""
        return self in {CampaignState.DONE, CampaignState.FAILED, CampaignState.CANCELLED}


class CampaignPurpose(StrEnum):
    """What a campaign measures for."""

    TUNE = "tune"
    COLLECT = "collect"
    IMPORT = "import"
    REPLAY = "replay"
    BENCH = "bench"


_AT_WORK = {
    CampaignPurpose.TUNE: "tuning",
    CampaignPurpose.COLLECT: "collecting",
    CampaignPurpose.IMPORT: "computing features",
    CampaignPurpose.REPLAY: "replaying",
    CampaignPurpose.BENCH: "timing",
}


class DeviceState(StrEnum):
    """Whether work can be sent to a device."""

    UNSPECIFIED = "unspecified"
    ONLINE = "online"
    OFFLINE = "offline"
    PROFILING = "profiling"
    QUARANTINED = "quarantined"
    IMPORTED = "imported"
    """Known from a dataset alone."""
    DRAINING = "draining"
    """Gets no more work, and finishes what it has."""
    DRAINED = "drained"
    """Gets no more work, and has none."""


@dataclass(frozen=True)
class Failure:
    """Why a campaign failed."""

    reason: str
    """Name from :class:`tunefleet.errors.Reason`."""
    message: str


@dataclass(frozen=True)
class Artifact:
    """One file of a campaign's results."""

    path: str
    """Relative to the result folder, with forward slashes."""
    digest: str
    """SHA-256 in hex."""
    size_bytes: int


@dataclass(frozen=True)
class TaskStatus:
    """One workload of the model on one target. Times are seconds of one call."""

    name: str
    workload: str
    target: str
    fingerprint: str
    sources: Mapping[str, int]
    """How often each network or family that the task comes from has it."""
    weight: int
    """Calls in one run of the model."""
    flops: float
    """Floating-point operations of one call."""
    trials: int
    measured_trials: int
    baseline_s: float | None
    best_s: float | None
    exhausted: bool

    @property
    def speedup(self) -> float | None:
        """Baseline over best; ``None`` until both were measured."""
        return None if not self.baseline_s or not self.best_s else self.baseline_s / self.best_s

    @property
    def gflops(self) -> float | None:
        """Rate of the best schedule in GFLOP/s; ``None`` where it cannot be told."""
        return None if not self.best_s or self.flops <= 0 else self.flops / self.best_s / 1e9

    @property
    def network_s(self) -> float | None:
        """Seconds that one run of the model spends in this task: weight times best latency."""
        latency = self.best_s if self.best_s is not None else self.baseline_s
        return None if latency is None else self.weight * latency


@dataclass(frozen=True)
class TargetStatus:
    """How far a campaign is on one kind of device. Latencies are seconds of one run."""

    target: str
    """Canonical JSON."""
    fingerprint: str
    devices: tuple[str, ...]
    trials: int
    trials_wanted: int
    estimated_latency_s: float | None
    """Sum over tasks of weight times best latency; ``None`` until each task has one."""
    estimated_baseline_s: float | None
    benchmark_s: Mapping[str, float]
    """End-to-end latency of ``untuned``, ``tuned`` and ``onnxruntime``; empty until the end."""
    max_abs_err: float | None
    """Largest absolute difference of the tuned outputs to onnxruntime's."""
    benchmark_error: str = ""
    """Why there are no end-to-end latencies; empty where nothing went wrong."""

    @property
    def estimated_speedup(self) -> float | None:
        """Baseline over latency, both estimated; ``None`` until it can be told."""
        if not self.estimated_latency_s or not self.estimated_baseline_s:
            return None
        return self.estimated_baseline_s / self.estimated_latency_s


@dataclass(frozen=True)
class CampaignStatus:
    """A campaign as it was when the coordinator was asked."""

    campaign_id: str
    name: str
    state: CampaignState
    error: Failure | None
    activity: str
    """What is being done at the moment, for people."""
    model_filename: str
    model_digest: str
    shapes: Mapping[str, tuple[int, ...]]
    device_selector: str
    purpose: CampaignPurpose
    targets_requested: tuple[str, ...]
    """Empty where each device's own is used."""
    families: tuple[str, ...]
    """Families of operators that are collected from; empty where a model is."""
    workloads: int
    """Workloads sampled from each family."""
    trials_per_task: int
    """0 for a campaign that tunes."""
    trials_requested: int
    """0 where the coordinator chose."""
    time_limit_s: float | None
    seed: int
    created_at: datetime
    ended_at: datetime | None
    tuning_s: float
    eta_s: float | None
    model_version: str
    targets: tuple[TargetStatus, ...]
    tasks: tuple[TaskStatus, ...]
    """Empty in listings."""
    artifacts: tuple[Artifact, ...]
    artifact_dir: str
    """Result folder on the coordinator's machine; empty until it is done."""
    min_gain: float = 0.0
    """Share of the latency that a round must be expected to gain; 0 to use the whole budget."""
    tuning_ended: str = ""
    """Why it tries no further schedules, for people; empty until then."""

    @property
    def trials(self) -> int:
        """Trials stored, over all targets."""
        return sum(t.trials for t in self.targets)

    @property
    def trials_wanted(self) -> int:
        """Trials wanted, over all targets."""
        return sum(t.trials_wanted for t in self.targets)

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices at work."""
        return tuple(sorted({name for t in self.targets for name in t.devices}))

    @property
    def doing(self) -> str:
        """The state in a word that fits the purpose: a collection collects, it does not tune."""
        return _AT_WORK[self.purpose] if self.state is CampaignState.TUNING else str(self.state)

    def __str__(self) -> str:
        """Sum it up in one line, for logs and ``print``."""
        parts = [f"{self.name} {self.doing}"]
        if self.trials_wanted:
            parts.append(f"{self.trials}/{self.trials_wanted} trials")
        for target in self.targets:
            if target.estimated_latency_s is not None:
                where = f" on {short_target(target.target)}" if len(self.targets) > 1 else ""
                gain = target.estimated_speedup
                better = f" ({factor(gain)} over untuned)" if gain is not None else ""
                parts.append(f"estimated {latency(target.estimated_latency_s)}{better}{where}")
        if self.model_version:
            parts.append(f"cost model {self.model_version}")
        if self.eta_s is not None and self.state is CampaignState.TUNING:
            parts.append(f"{duration(self.eta_s)} to go")
        if self.error is not None:
            parts.append(f"{self.error.reason}: {self.error.message}")
        elif self.activity and not self.state.ended:
            parts.append(self.activity)
        return ", ".join(parts)


@dataclass(frozen=True)
class Quarantine:
    """Why a device gets no work: it strayed from its own history."""

    reason: str
    since: datetime
    until: datetime
    """When it gets a round again, to see whether it has recovered."""


@dataclass(frozen=True)
class Device:
    """One agent on one machine."""

    device_id: str
    name: str
    state: DeviceState
    fingerprint: str
    """Equal for identical machines."""
    target: str
    labels: Mapping[str, str]
    trials: int
    last_seen: datetime
    agent_version: str
    profile: DeviceProfile
    quarantine: Quarantine | None = None
    draining: bool = False
    """Gets no more work, whether it is connected or not."""
    outbox_trials: int = 0
    """Trials on its disk that the coordinator has not acknowledged."""
    outbox_bytes: int = 0
    outbox_limit_bytes: int = 0
    """What they may take before it takes no more work; 0 where that is not known."""
    clock_offset_s: float | None = None
    """How far its clock is ahead of the coordinator's; ``None`` where that is not known."""


@dataclass(frozen=True)
class Coordinator:
    """A coordinator as it is now."""

    version: str
    protocols: str
    """Oldest and newest that it speaks, such as ``1-2``."""
    tvm_version: str
    feature_schema: str
    draining: bool
    """Whether it gives out no more work."""
    active_leases: int
    """Work under way on devices."""
    busy_devices: tuple[str, ...]
    """Names of those that have it."""
    blob_bytes: int
    blob_quota_bytes: int
    """0 for no limit."""


@dataclass(frozen=True)
class ModelVersion:
    """One trained cost model."""

    version: str
    parent: str
    """Empty for the first."""
    current: bool
    promoted: bool
    why: str
    """Why it was or was not promoted."""
    metrics: Mapping[str, float]
    trials: int
    """The coordinator's own that it was trained on; 0 for one that was made elsewhere."""
    created_at: datetime
    training_s: float
    digest: str
    feature_schema: str
    rolled_back: bool = False
    """Whether somebody took it out of use."""
