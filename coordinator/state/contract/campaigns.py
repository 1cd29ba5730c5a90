"""Campaigns and their tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    KnownTask,
    TaskKey,
    TaskProgress,
    TaskRecord,
    TaskTotals,
)


class CampaignStore(ABC):
    """What the store does with campaigns, by the rules of the whole contract."""

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
    def task_progress(self, campaign_id: str, fingerprint: str = "") -> list[TaskProgress]:
        """Return a campaign's tasks in the order they were added, with what is known of each.

        Args:
            campaign_id: which campaign's.
            fingerprint: only those for this hardware; empty for all.
        """

    @abstractmethod
    def known_tasks(self) -> list[KnownTask]:
        """Return every record set with a latency that some campaign had as a task, each once."""

    @abstractmethod
    def task_totals(self) -> dict[str, TaskTotals]:
        """Return, for each campaign that has tasks, how many and how many trials they have."""
