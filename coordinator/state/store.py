"""The contract of the coordinator's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    DeviceRecord,
    LeaseRecord,
    LeaseState,
    ModelVersionRecord,
    Quarantine,
    TaskKey,
    TaskProgress,
    TaskRecord,
    TaskTotals,
)
from coordinator.state.trial_records import (
    KnownCandidate,
    LatencyPoint,
    MeasuredTrial,
    ProfileRecord,
    ReplayPair,
    TrainingRow,
    TrialCount,
    TrialFilter,
    TrialRecord,
    WorkloadRecord,
)
from tunefleet.trials import ProgramFeatures, Trial


@dataclass(frozen=True)
class IngestOutcome:
    """What became of reported trials."""

    stored: tuple[str, ...]
    """Trials that are stored durably, by this call or an earlier one."""
    rejected: Mapping[str, str]
    """Trials that will never be stored, with the reason."""
    new: int
    """Trials that were not stored before this call."""
    campaign_id: str = ""
    """The campaign of the lease; empty where everything was rejected for its lease."""


class Store(ABC):
    """Everything the coordinator must not forget.

    * Every method is atomic: it happens wholly or not at all, and when it returns, it is durable.
    * Every method may be called from any thread. No method keeps a lock after it returned.
    * Records given and returned are values; the store keeps no reference to them.
    * Time is always an argument, in seconds since 1970 by the coordinator's clock.
    * A name that is not known raises TuneFleetError with the reason of the catalogue
      (``CAMPAIGN_UNKNOWN``, ``DEVICE_UNKNOWN``, ``LEASE_LOST``, ``MODEL_VERSION_UNKNOWN``).
    """

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. Nothing may be called afterwards."""

    # Devices

    @abstractmethod
    def put_device(self, device: DeviceRecord) -> None:
        """Add a device or replace what is known of it; its count of trials is kept.

        Raises:
            TuneFleetError: INVALID_ARGUMENT if another device has the same name.
        """

    @abstractmethod
    def touch_device(self, device_id: str, now: float) -> None:
        """Note that a device was heard of. Raises AGENT_UNKNOWN."""

    @abstractmethod
    def get_device(self, name_or_id: str) -> DeviceRecord:
        """Return one device by id or by name. Raises DEVICE_UNKNOWN."""

    @abstractmethod
    def list_devices(self) -> list[DeviceRecord]:
        """Return all devices, by name."""

    @abstractmethod
    def set_quarantine(self, device_id: str, quarantine: Quarantine | None) -> None:
        """Keep work from a device, or let it have work again. Raises DEVICE_UNKNOWN."""

    @abstractmethod
    def note_canary(self, lease_id: str, now: float) -> None:
        """Add to a device's history what its reference kernel took during a round.

        That is the median over the round's trials that are OK or THROTTLED: what a neighbour or
        chance disturbed says nothing of the device. A round without such a reading, or whose
        reading was noted before, adds nothing.
        """

    @abstractmethod
    def canary_readings(self, device_id: str, key: TaskKey, limit: int) -> list[float]:
        """Return a device's last readings for a task's target and hardware, oldest first."""

    @abstractmethod
    def forget_canary(self, device_id: str) -> None:
        """Forget a device's history of readings."""

    # Campaigns

    @abstractmethod
    def create_campaign(self, campaign: CampaignRecord, idempotency_key: str) -> CampaignRecord:
        """Add a campaign, or return the one that was made with the same non-empty key."""

    @abstractmethod
    def get_campaign(self, reference: str) -> CampaignRecord:
        """Return one campaign by id, by an unambiguous beginning of it, or by its only name."""

    @abstractmethod
    def list_campaigns(self, states: Sequence[CampaignState] = ()) -> list[CampaignRecord]:
        """Return campaigns in the given states (all for none), newest first."""

    @abstractmethod
    def update_campaign(
        self, campaign_id: str, expected: Sequence[CampaignState], **changes: Any
    ) -> CampaignRecord:
        """Replace fields of a campaign if it is in one of the expected states.

        Args:
            campaign_id: exact id.
            expected: states in which the change is allowed; none for any state.
            changes: names and values of CampaignRecord's fields.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, or CAMPAIGN_STATE if it is in another state.
        """

    @abstractmethod
    def add_tasks(
        self, campaign_id: str, tasks: Sequence[TaskRecord], *, count_stored: bool = False
    ) -> None:
        """Add tasks to a campaign; those it has already stay as they are.

        With ``count_stored``, a task's trials begin with those that its record set has already,
        whoever measured them.
        """

    @abstractmethod
    def mark_exhausted(self, campaign_id: str, key: TaskKey) -> None:
        """Note that a task's search finds nothing more to try."""

    @abstractmethod
    def task_progress(self, campaign_id: str) -> list[TaskProgress]:
        """Return a campaign's tasks in the order they were added, with what is known of each."""

    @abstractmethod
    def task_totals(self) -> dict[str, TaskTotals]:
        """Return, for each campaign that has tasks, how many and how many trials they have."""

    # Leases

    @abstractmethod
    def grant_lease(self, lease: LeaseRecord) -> None:
        """Add an active lease.

        Raises:
            TuneFleetError: LEASE_LOST if the device holds an active lease already, or another
                device holds one for the same round of the same campaign.
        """

    @abstractmethod
    def next_fencing_token(self) -> int:
        """Return a number larger than every one it returned before, over restarts too."""

    @abstractmethod
    def active_lease(self, device_id: str) -> LeaseRecord | None:
        """Return the lease a device holds, if any."""

    @abstractmethod
    def list_leases(
        self, campaign_id: str = "", states: Sequence[LeaseState] = ()
    ) -> list[LeaseRecord]:
        """Return leases of a campaign (of all for none) in the given states (any for none)."""

    @abstractmethod
    def renew_lease(self, lease_id: str, fencing_token: int, expires_at: float) -> None:
        """Prolong an active lease. Raises LEASE_LOST if it ended or the token is not its."""

    @abstractmethod
    def end_lease(
        self,
        lease_id: str,
        fencing_token: int,
        state: LeaseState,
        error: str = "",
        phase_seconds: Mapping[str, float] | None = None,
    ) -> LeaseRecord:
        """End a lease; ending one that ended in the same state changes nothing.

        Raises:
            TuneFleetError: LEASE_LOST if the token is not the lease's, or it ended otherwise.
        """

    @abstractmethod
    def expire_leases(self, now: float) -> list[LeaseRecord]:
        """End active leases whose time is up and return them."""

    @abstractmethod
    def cancel_leases(self, campaign_id: str) -> list[LeaseRecord]:
        """End a campaign's active leases and return them."""

    # Trials

    @abstractmethod
    def ingest_trials(
        self,
        device_id: str,
        lease_id: str,
        fencing_token: int,
        trials: Sequence[Trial],
        now: float,
    ) -> IngestOutcome:
        """Store trials, each exactly once, under the task and campaign of their lease.

        Late trials, of a lease that has ended, are stored too. Trials of a lease that never was
        this device's, or with another token, or that name another lease, are rejected one by one.
        """

    @abstractmethod
    def tried_candidates(self, key: TaskKey) -> frozenset[str]:
        """Return every candidate of a record set, whatever its verdict; LOST ones excepted."""

    @abstractmethod
    def best_candidates(self, key: TaskKey, limit: int) -> list[KnownCandidate]:
        """Return the fastest candidates of a record set, fastest first, each once."""

    @abstractmethod
    def latency_points(self, campaign_id: str) -> list[LatencyPoint]:
        """Return a campaign's trials in the order they arrived."""

    @abstractmethod
    def last_predictions(
        self, key: TaskKey, versions: Collection[str], limit: int
    ) -> list[LatencyPoint]:
        """Return a record set's last trials with both a score and a latency, the newest first.

        Args:
            key: the record set.
            versions: only scores that one of these model versions gave.
            limit: trials at the most.
        """

    @abstractmethod
    def count_trials(self, campaign_id: str = "") -> int:
        """Return how many trials are stored, of one campaign or in all."""

    @abstractmethod
    def training_rows(self) -> Iterator[TrainingRow]:
        """Yield every trial that has features, in a stable order, in bounded memory."""

    # Datasets

    @abstractmethod
    def trial_records(self, chosen: TrialFilter) -> Iterator[TrialRecord]:
        """Yield trials whole, record set by record set and oldest first within each.

        Memory stays bounded. What is stored meanwhile may be left out.
        """

    @abstractmethod
    def count_trials_by_verdict(self, chosen: TrialFilter) -> list[TrialCount]:
        """Count trials by record set, device, campaign and verdict."""

    @abstractmethod
    def list_workloads(self) -> list[WorkloadRecord]:
        """Return every workload of every campaign, each once, by structural hash."""

    @abstractmethod
    def list_profiles(self) -> list[ProfileRecord]:
        """Return what every device was, once for each fingerprint it has had."""

    @abstractmethod
    def import_trials(
        self, campaign_id: str, trials: Sequence[TrialRecord], now: float
    ) -> IngestOutcome:
        """Store trials that another coordinator's agents measured, each exactly once.

        They keep their names, leases, devices and record sets. One that is stored already stays as
        it is; rejected are those that contradict what is stored: another candidate or record set
        under the same name, a lease of this coordinator's own, or of another task or device.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, or DEVICE_UNKNOWN if a device was not put before.
        """

    @abstractmethod
    def count_unfeatured(self, campaign_id: str) -> int:
        """Return how many trials of a campaign's tasks wait for their features, whoever's they are.

        Tasks whose module is not known are left out.
        """

    @abstractmethod
    def unfeatured(
        self, campaign_id: str, limit: int, besides: Collection[TaskKey] = ()
    ) -> list[TrialRecord]:
        """Return trials of one of a campaign's tasks that wait for their features, oldest first.

        Each candidate comes once. A task whose module is not known is left out.

        Args:
            campaign_id: the campaign.
            limit: trials at the most.
            besides: tasks that are left out.
        """

    @abstractmethod
    def put_features(
        self,
        key: TaskKey,
        features: Mapping[str, ProgramFeatures],
        impossible: Mapping[str, str],
    ) -> None:
        """Keep what was computed for a task's trials that wait for their features.

        Args:
            key: the task.
            features: by candidate.
            impossible: candidates that will never have features, with the reason; they wait no
                longer.
        """

    # Replays

    @abstractmethod
    def measured_trials(self, key: TaskKey, campaign_id: str = "") -> list[MeasuredTrial]:
        """Return the trials of a record set that have a latency, the fastest first.

        Args:
            key: the record set.
            campaign_id: only trials of this campaign; of all for none.
        """

    @abstractmethod
    def plan_replays(self, campaign_id: str, key: TaskKey, trial_ids: Sequence[str]) -> None:
        """Plan to measure the schedules of stored trials again, on a task of a campaign.

        A candidate that is planned for the task already stays as it is planned.
        """

    @abstractmethod
    def pending_replays(self, campaign_id: str, key: TaskKey, limit: int) -> list[KnownCandidate]:
        """Return planned schedules that the campaign has no trial of yet, the fastest first."""

    @abstractmethod
    def replay_pairs(self, campaign_id: str) -> list[ReplayPair]:
        """Return everything that is planned with what came of it, task by task."""

    # Cost models

    @abstractmethod
    def add_model_version(
        self, model: ModelVersionRecord, *, instead_of: str | None = None
    ) -> None:
        """Add a version. One that is promoted becomes the current one.

        Args:
            model: the version; its name must be new.
            instead_of: the version that it was judged against, empty for none.

        Raises:
            TuneFleetError: MODEL_VERSION_STATE if it is promoted and another version than
                ``instead_of`` is the current one; ``None`` stands for whichever that is.
        """

    @abstractmethod
    def promote_model(
        self,
        version: str,
        why: str,
        *,
        instead_of: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ModelVersionRecord:
        """Make a version the current one; for the current one nothing changes.

        Args:
            version: its name.
            why: the reason, kept with it.
            instead_of: as in :meth:`add_model_version`.
            metrics: what was measured of it; those it had keep their values where none is new.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, or MODEL_VERSION_STATE if another version than
                ``instead_of`` is the current one.
        """

    @abstractmethod
    def roll_back_model(self, version: str, why: str) -> ModelVersionRecord:
        """Take the current version out of use and return the one that is current now.

        That is the one promoted last among those that were not rolled back. A version that was
        rolled back before, and is not current again, changes nothing.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, or MODEL_VERSION_STATE if the version is not the
                current one or no other is promoted.
        """

    @abstractmethod
    def current_model(self) -> ModelVersionRecord | None:
        """Return the version agents rank with: the one that was promoted last."""

    @abstractmethod
    def get_model_version(self, version: str) -> ModelVersionRecord:
        """Return one version. Raises MODEL_VERSION_UNKNOWN."""

    @abstractmethod
    def list_model_versions(self) -> list[ModelVersionRecord]:
        """Return all versions, newest first."""
