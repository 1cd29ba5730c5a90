"""What the coordinator tells of trials, as plain values: changing one changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from coordinator.state.records import TaskKey
from tunefleet.devices import DeviceProfile
from tunefleet.trials import Trial


@dataclass(frozen=True)
class KnownCandidate:
    """A measured schedule of one record set."""

    candidate: str
    trace: str = field(repr=False)
    latency_s: float


@dataclass(frozen=True)
class LatencyPoint:
    """One trial on a campaign's way: what plots of progress are drawn from."""

    key: TaskKey
    received_at_unix_s: float
    candidate: str
    latency_s: float | None
    verdict: str
    predicted: float | None
    model_version: str


@dataclass(frozen=True)
class TrainingRow:
    """One trial as the cost model sees it."""

    key: TaskKey
    candidate: str
    stores: int
    features: bytes = field(repr=False)
    latency_s: float | None
    noise: float
    """Half the width of the interval of the median latency, as a share of it; NaN where unknown."""
    verdict: str
    hardware: tuple[float, ...]
    """The hardware vector of the device that measured it, NaN where unknown."""
    trace: str = field(repr=False)


@dataclass(frozen=True)
class TrialFilter:
    """Which trials are meant; an empty field stands for any."""

    campaign_ids: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    """Canonical targets."""
    device_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrialRecord:
    """One trial with everything known of it."""

    key: TaskKey
    device_id: str
    campaign_id: str
    """Campaign it was measured for, which may have been another coordinator's."""
    task: str
    """Name of the workload in that campaign; empty where it is not known."""
    sources: Mapping[str, int]
    """Networks and families that the workload comes from, with its weight in each."""
    trial: Trial


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial that has a latency."""

    trial_id: str
    candidate: str
    latency_s: float


@dataclass(frozen=True)
class ReplayPair:
    """A schedule before and after it was measured again."""

    key: TaskKey
    """Where it was measured again."""
    candidate: str
    before_s: float
    before_target: str
    before_fingerprint: str
    after_s: float | None
    """``None`` where it gave no latency."""
    verdict: str
    """Empty where it has not been measured again yet."""


@dataclass(frozen=True)
class TrialCount:
    """How many trials of one record set and campaign have one verdict."""

    key: TaskKey
    device_id: str
    task: str
    sources: Mapping[str, int]
    verdict: str
    trials: int
    featured: int
    """Those of them that have features."""
    fastest_s: float | None
    slowest_s: float | None


@dataclass(frozen=True)
class WorkloadRecord:
    """A workload as all campaigns together know it."""

    workload: str
    digest: str
    """Blob with the IRModule as TVM's JSON; empty where only its trials are known."""
    name: str
    flops: float
    sources: Mapping[str, int]


@dataclass(frozen=True)
class ProfileRecord:
    """What a device was while it had one fingerprint."""

    device_id: str
    name: str
    profile: DeviceProfile
