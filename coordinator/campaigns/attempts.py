"""How often a piece of work has failed."""

from __future__ import annotations

from coordinator.state.records import LeaseRecord, LeaseState
from coordinator.state.store import Store


def failed_attempts(store: Store, lease: LeaseRecord) -> int:
    """Count ended leases for the same work as an ended one, itself included, that did not go well.

    One that was done counts too: whoever asks has found its result wanting.
    """
    ended = [LeaseState.DONE, LeaseState.FAILED]
    return sum(
        (other.kind, other.workload, other.target, other.fingerprint)
        == (lease.kind, lease.workload, lease.target, lease.fingerprint)
        for other in store.list_leases(lease.campaign_id, ended)
        if other.state is LeaseState.FAILED or other.lease_id == lease.lease_id
    )
