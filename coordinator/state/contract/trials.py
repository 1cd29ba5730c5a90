"""Trials as they come in, and what searches and reports ask of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.state.records import TaskKey
from coordinator.state.trial_records import KnownCandidate, LatencyPoint, TrainingRow
from tunefleet.trials import Trial


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


@dataclass(frozen=True)
class PreparedReport:
    """Trials that a device reports, as far as they can be got ready without the database.

    Only the store that made it can read all of it.
    """

    device_id: str
    lease_id: str
    fencing_token: int
    trials: Sequence[Trial] = field(repr=False)


class TrialStore(ABC):
    """What the store does with trials, by the rules of the whole contract."""

    @abstractmethod
    def prepare_report(
        self, device_id: str, lease_id: str, fencing_token: int, trials: Sequence[Trial]
    ) -> PreparedReport:
        """Do what storing trials takes apart from the database, so that no writer waits for it."""

    @abstractmethod
    def ingest_reports(self, reports: Sequence[PreparedReport], now: float) -> list[IngestOutcome]:
        """Store trials, each exactly once, under the task and campaign of their lease.

        Late trials, of a lease that has ended, are stored too. Trials of a lease that never was
        this device's, or with another token, or that name another lease, are rejected one by one.

        Returns:
            What became of each report, in their order.
        """

    def ingest_trials(
        self,
        device_id: str,
        lease_id: str,
        fencing_token: int,
        trials: Sequence[Trial],
        now: float,
    ) -> IngestOutcome:
        """Store one report's trials, as :meth:`ingest_reports`."""
        report = self.prepare_report(device_id, lease_id, fencing_token, trials)
        return self.ingest_reports([report], now)[0]

    @abstractmethod
    def tried_candidates(self, key: TaskKey) -> frozenset[str]:
        """Return every candidate of a record set that is not to be measured again.

        Whatever its verdict: but those of LOST trials only may be measured once more, unless they
        were lost twice. Since a record set is of one hardware, that is a quarantine on a class of
        devices.
        """

    @abstractmethod
    def best_candidates(self, key: TaskKey, limit: int) -> list[KnownCandidate]:
        """Return the fastest candidates of a record set, fastest first, each once.

        What was measured several times counts with the median of its latencies, and what was
        measured once must then be clearly faster: see :mod:`coordinator.state.estimates`. The
        first one is what its summary calls the best.
        """

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
