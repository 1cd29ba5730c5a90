"""Stored schedules that are to be measured again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from coordinator.state.records import TaskKey
from coordinator.state.trial_records import KnownCandidate, MeasuredTrial, ReplayPair


class ReplayStore(ABC):
    """What the store does with replays, by the rules of the whole contract."""

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
    def pending_replays(
        self, campaign_id: str, key: TaskKey, limit: int, *, times: int = 1
    ) -> list[KnownCandidate]:
        """Return planned schedules that the campaign has not replayed yet, the fastest first.

        Args:
            campaign_id: its exact id.
            key: one of its tasks.
            limit: schedules at the most.
            times: how often each is to be replayed.
        """

    @abstractmethod
    def replay_pairs(self, campaign_id: str) -> list[ReplayPair]:
        """Return everything that is planned with what came of it, task by task."""
