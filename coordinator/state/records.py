"""What the coordinator remembers, as plain values: changing one changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tunefleet.budgets import DEFAULT_MIN_GAIN
from tunefleet.devices import DeviceProfile
from tunefleet.leases import OpTime


@dataclass(frozen=True)
class Quarantine:
    """Keeps work from a device that strayed from its own history."""

    reason: str
    since_unix_s: float
    until_unix_s: float
    """When it gets a round again, on probation."""
    strikes: int = 1
    """Times in a row that it was found astray."""


@dataclass(frozen=True)
class DeviceRecord:
    """One agent on one machine."""

    device_id: str
    name: str
    profile: DeviceProfile
    target: str
    """Canonical target that work is built for unless a campaign says otherwise."""
    labels: Mapping[str, str] = field(default_factory=dict)
    agent_version: str = ""
    last_seen_unix_s: float = 0.0
    trials: int = 0
    imported: bool = False
    """Known from a dataset alone: no agent of it ever registered here, and it gets no work."""
    quarantine: Quarantine | None = None
    draining: bool = False
    """Somebody wants it to get no more work."""
    protocol: int = 1
    """That is spoken with its agent."""
    feature_schema: str = ""
    """Digest of the schema that its agent extracts; empty where it never said."""
    capabilities: tuple[str, ...] = ()
    """Kinds of leases that its agent can carry out; none for an agent that never said."""

    @property
    def fingerprint(self) -> str:
        """Name of the hardware; devices that share it share tasks and records."""
        return self.profile.fingerprint()

    @property
    def ready(self) -> bool:
        """Whether the device has measured itself, without which it gets no work."""
        return self.profile.measured is not None

    def can(self, kind: LeaseKind) -> bool:
        """Whether its agent knows a kind of work."""
        return not self.capabilities or kind in self.capabilities

    def is_quarantined(self, now: float) -> bool:
        """Whether it gets no work at a time, in seconds since 1970.

        A quarantine that seems to begin later is of before the clock was set back, and is over: it
        would hold for as long as that was.
        """
        rest = self.quarantine
        return rest is not None and rest.since_unix_s <= now < rest.until_unix_s


class CampaignState(StrEnum):
    """Where a campaign is on its way; see the message of the same name."""

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


@dataclass(frozen=True)
class ArtifactRecord:
    """One file, kept as a blob: of a campaign's results, or of what it begins with."""

    path: str
    digest: str
    size_bytes: int


class DatasetFormat(StrEnum):
    """What the files of a dataset are."""

    PARQUET = "parquet"
    METASCHEDULE = "metaschedule"


@dataclass(frozen=True)
class DatasetSource:
    """A dataset to take in."""

    files: tuple[ArtifactRecord, ...]
    format: DatasetFormat
    device_id: str = ""
    """The device that measured it, where the files do not say."""
    target: str = ""
    """Canonical target it was built for, likewise."""
    featurize: bool = False
    """Have features computed where they are missing or of another schema."""


@dataclass(frozen=True)
class ReplaySource:
    """Which schedules are measured again."""

    campaign_id: str
    """Whose trials they are."""
    best: int = 0
    """Only so many of each task's fastest; 0 for all."""
    per_task: int = 0
    """So many of each task, spread over its latencies; 0 for all."""


@dataclass(frozen=True)
class BenchSource:
    """Whose compiled modules are timed again."""

    campaign_id: str
    """The campaign that tuned."""
    per_op: bool = False
    """Also find out where the time goes inside of the network."""


@dataclass(frozen=True)
class CampaignSpec:
    """What a person asked for."""

    name: str
    model_digest: str
    """Empty where families are collected from."""
    model_filename: str
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    device_selector: str = ""
    targets: tuple[str, ...] = ()
    """Canonical targets in place of each device's own; none for their own."""
    trials: int = 0
    """Trials over all tasks of each group; 0 for a default from the number of tasks."""
    time_limit_s: float | None = None
    min_gain: float = DEFAULT_MIN_GAIN
    """Tuning ends where no next round is expected to lower the network's latency by this share of
    it; 0 uses the whole budget."""
    seed: int = 0
    purpose: CampaignPurpose = CampaignPurpose.TUNE
    families: tuple[str, ...] = ()
    """Families of operators to collect from in place of a model."""
    workloads: int = 0
    """Workloads to sample from each family."""
    trials_per_task: int = 0
    """Trials to collect of each task; 0 for a campaign that tunes."""
    dataset: DatasetSource | None = None
    """Of a campaign that imports."""
    replay: ReplaySource | None = None
    """Of a campaign that replays."""
    bench: BenchSource | None = None
    """Of a campaign that benchmarks."""

    def targets_for(self, device: DeviceRecord) -> tuple[str, ...]:
        """Return what is built for a device."""
        return self.targets or (device.target,)


@dataclass(frozen=True)
class GroupRecord:
    """The devices of one hardware that tune for one target within a campaign."""

    target: str
    fingerprint: str
    prepared_digest: str
    """Blob with the prepared Relax module for this target."""
    untuned_digest: str
    """The same in the layout the model came in: what tuning is compared with."""
    benchmark_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """End-to-end samples by subject, in seconds; empty until the group was benchmarked."""
    max_abs_err: float | None = None
    benchmark_error: str = ""
    compiled: Mapping[str, str] = field(default_factory=dict)
    """Blobs of the compiled modules by subject, ``untuned`` and ``tuned``; empty until compiled."""
    subject_errors: Mapping[str, str] = field(default_factory=dict)
    """Why a subject has no samples, by subject."""
    profiled_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Samples like ``benchmark_s`` of runs that noted where their time went, which costs time."""
    between_s: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """What of these passed between the calls."""
    ops: Mapping[str, tuple[OpTime, ...]] = field(default_factory=dict)
    """Where it went, by subject; empty unless that was asked for."""


@dataclass(frozen=True)
class CampaignRecord:
    """A campaign and how far it is."""

    campaign_id: str
    spec: CampaignSpec
    state: CampaignState
    created_at_unix_s: float
    ended_at_unix_s: float | None = None
    error_reason: str = ""
    error_message: str = ""
    activity: str = ""
    trials_wanted: int = 0
    """Trials for each group; known once the model is imported."""
    tuning_s: float = 0.0
    """Time spent tuning, up to the last change of state."""
    tuning_since_unix_s: float | None = None
    """When tuning last began or resumed; ``None`` while it rests."""
    groups: tuple[GroupRecord, ...] = ()
    onnx_digest: str = ""
    """Blob with the ONNX file onnxruntime runs for comparison; empty where there is none."""
    inputs_digest: str = ""
    outputs_digest: str = ""
    artifacts: tuple[ArtifactRecord, ...] = ()
    artifact_dir: str = ""
    tuning_ended: str = ""
    """Why it tries no further schedules, for people; empty until then. A campaign that tunes may go
    on tuning for a while: then it measures its best schedules again."""
    tvm_version: str = ""
    """Release of apache-tvm that its tasks were made with; empty where nobody noted it."""

    def tuned_for_s(self, now: float) -> float:
        """Return the seconds spent tuning up to a time, in seconds since 1970."""
        if self.state is not CampaignState.TUNING or self.tuning_since_unix_s is None:
            return self.tuning_s
        return self.tuning_s + max(0.0, now - self.tuning_since_unix_s)


@dataclass(frozen=True)
class TaskKey:
    """Names one set of records: a workload, for a target, on a hardware. Sets never mix."""

    workload: str
    target: str
    fingerprint: str


@dataclass(frozen=True)
class TaskRecord:
    """One workload of a campaign's model in one group."""

    key: TaskKey
    name: str
    weight: int
    flops: float
    workload_digest: str
    exhausted: bool = False
    sources: Mapping[str, int] = field(default_factory=dict)
    """How often each network or family that the task comes from has it."""


@dataclass(frozen=True)
class KnownTask:
    """A task as far as tasks of other campaigns are compared with it."""

    key: TaskKey
    name: str
    flops: float


@dataclass(frozen=True)
class TaskProgress:
    """A task and what is known of it from every campaign's records."""

    task: TaskRecord
    trials: int = 0
    """Trials stored by this campaign."""
    measured: int = 0
    """Those of them with a latency."""
    baseline_s: float | None = None
    best_s: float | None = None
    best_candidate: str = ""
    rounds: int = 0
    """Rounds of this campaign that ended, whatever their outcome. Those that were lost or given
    back without a trial count only by the ten."""
    best_by_round_s: tuple[float, ...] = ()
    """Best latency known after each of this campaign's rounds, oldest first; rounds that ended
    before any latency was known are left out."""
    trials_by_round: tuple[int, ...] = ()
    """Trials that this campaign had made of the task after each of the same rounds."""
    final_s: float | None = None
    """Best latency known when this campaign last ended measuring the task, replays included;
    ``None`` until it did."""
    trial_s: float | None = None
    """Seconds that a trial takes on the device, search included, in the round that was the least
    disturbed; ``None`` where no round tells."""


@dataclass(frozen=True)
class TaskTotals:
    """A campaign's tasks, counted."""

    tasks: int
    trials: int


class LeaseState(StrEnum):
    """How a lease stands."""

    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"
    RETURNED = "returned"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class LeaseKind(StrEnum):
    """What a lease is for."""

    ROUND = "round"
    BENCHMARK = "benchmark"
    REPLAY = "replay"
    FEATURIZE = "featurize"
    IMPORT = "import"
    """Was granted by another coordinator, and is known here for its trials' sake."""

    @property
    def measures(self) -> bool:
        """Whether trials come of it."""
        return self in {LeaseKind.ROUND, LeaseKind.REPLAY}


@dataclass(frozen=True)
class LeaseRecord:
    """A lease that was granted."""

    lease_id: str
    fencing_token: int
    device_id: str
    campaign_id: str
    kind: LeaseKind
    target: str
    fingerprint: str
    workload: str
    """Empty for a benchmark."""
    message: bytes = field(repr=False)
    """The Lease message as it was sent, so that asking again brings the same work; for an import,
    the id that the campaign had where the lease was granted."""
    expires_at_unix_s: float
    granted_at_unix_s: float
    state: LeaseState = LeaseState.ACTIVE
    error: str = ""
    phase_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelVersionRecord:
    """One trained cost model."""

    version: str
    parent: str
    digest: str
    checkpoint_digest: str
    feature_schema: str
    promoted: bool
    why: str
    metrics: Mapping[str, float]
    trials: int
    """Of this coordinator's, that it was trained on; 0 for a version that was made elsewhere."""
    created_at_unix_s: float
    training_s: float
    rolled_back: bool = False
    """Whether somebody took it out of use."""
