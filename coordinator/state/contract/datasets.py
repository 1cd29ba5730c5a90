"""Trials whole, on their way into datasets and out of them, and their missing features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence

from coordinator.state.contract.trials import IngestOutcome
from coordinator.state.records import TaskKey
from coordinator.state.trial_records import (
    ProfileRecord,
    TrialCount,
    TrialFilter,
    TrialRecord,
    WorkloadRecord,
)
from tunefleet.trials import ProgramFeatures


class DatasetStore(ABC):
    """What the store does with datasets, by the rules of the whole contract."""

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
