"""Leases: who may work on what, and until when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from coordinator.state.records import LeaseKind, LeaseRecord, LeaseState, TaskKey


class LeaseStore(ABC):
    """What the store does with leases, by the rules of the whole contract."""

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
    def lease_messages(self, device_id: str, limit: int) -> list[bytes]:
        """Return a device's last leases as they were granted, the newest first."""

    @abstractmethod
    def list_leases(
        self,
        campaign_id: str = "",
        states: Sequence[LeaseState] = (),
        kinds: Sequence[LeaseKind] = (),
    ) -> list[LeaseRecord]:
        """Return leases of a campaign (of all for none) in given states and of given kinds."""

    @abstractmethod
    def leased_tasks(self, fingerprint: str) -> frozenset[TaskKey]:
        """Return what is being worked on for a hardware, by whatever campaign."""

    @abstractmethod
    def is_leased(self, campaign_id: str) -> bool:
        """Return whether any device is at work for a campaign."""

    @abstractmethod
    def renew_lease(
        self, lease_id: str, fencing_token: int, expires_at: float, *, device_id: str = ""
    ) -> None:
        """Prolong an active lease.

        Raises:
            TuneFleetError: LEASE_LOST if it ended, the token is not its, or it is not the device's,
                where one is given.
        """

    @abstractmethod
    def end_lease(
        self,
        lease_id: str,
        fencing_token: int,
        state: LeaseState,
        error: str = "",
        phase_seconds: Mapping[str, float] | None = None,
        *,
        device_id: str = "",
    ) -> LeaseRecord:
        """End a lease; ending one that ended in the same state changes nothing.

        Raises:
            TuneFleetError: LEASE_LOST if the token is not the lease's, it ended otherwise, or is
                not the device's, where one is given.
        """

    @abstractmethod
    def expire_leases(self, now: float) -> list[LeaseRecord]:
        """End active leases whose time is up and return them."""

    @abstractmethod
    def cancel_leases(self, campaign_id: str) -> list[LeaseRecord]:
        """End a campaign's active leases and return them."""
