"""Leases in SQL. Two partial unique indexes keep a device, and a piece of work, to one lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, bindparam, exists, select, update
from sqlalchemy.dialects import postgresql, sqlite

from coordinator.state.database import Database
from coordinator.state.records import LeaseKind, LeaseRecord, LeaseState, TaskKey
from coordinator.state.rows import lease_record, lease_values
from coordinator.state.store import Store
from coordinator.state.tables import (
    IS_ACTIVE,
    campaigns,
    counters,
    devices,
    leases,
    record_sets,
)
from tunefleet.errors import Reason, TuneFleetError

_FENCING = "fencing_token"

# What is known of a round's record set when the round ends.
_BEST_NOW = (
    select(record_sets.c.best_s)
    .where(
        record_sets.c.workload == leases.c.workload,
        record_sets.c.target == leases.c.target,
        record_sets.c.fingerprint == leases.c.fingerprint,
    )
    .scalar_subquery()
)

_LEASED_TASKS = select(leases.c.workload, leases.c.target, leases.c.fingerprint).where(
    leases.c.fingerprint == bindparam("hardware"), IS_ACTIVE
)
# Statements of what agents do all the time are made once: that takes longer than running them.
_GRANTS = {
    # A violated constraint would undo the calls of others, too.
    dialect: add(leases).on_conflict_do_nothing().returning(leases.c.lease_id)
    for dialect, add in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
}
_NEXT_TOKEN = (
    update(counters)
    .where(counters.c.name == _FENCING)
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)
_HELD = select(leases).where(IS_ACTIVE, leases.c.device_id == bindparam("device"))
_THIS = (
    (leases.c.lease_id == bindparam("lease"))
    & (leases.c.fencing_token == bindparam("token"))
    # All that its holder knows of it; whoever is no device does not say which.
    & ((bindparam("device", type_=String) == "") | (leases.c.device_id == bindparam("device")))
)
_LEASE = select(leases).where(_THIS)
_RENEW = update(leases).where(_THIS, IS_ACTIVE).values(expires_at=bindparam("until"))
_END = (
    update(leases)
    .where(_THIS, IS_ACTIVE)
    .values(
        state=bindparam("ended"),
        error=bindparam("why"),
        phase_seconds=bindparam("phases"),
        best_s=_BEST_NOW,
    )
)


class SqlLeases(Store):
    """The part of the store that knows leases."""

    _db: Database

    def grant_lease(self, lease: LeaseRecord) -> None:
        with self._db.write(undoable=False) as connection:
            _check_known(connection, lease)
            grant = _GRANTS[connection.dialect.name]
            granted = connection.execute(grant, lease_values(lease)).first() is not None
        if not granted:
            raise TuneFleetError(
                Reason.LEASE_LOST,
                f"device {lease.device_id} holds a lease already, or another device holds one for "
                f"the same {lease.kind} of campaign {lease.campaign_id}",
            )

    def next_fencing_token(self) -> int:
        with self._db.write(undoable=False) as connection:
            return int(connection.execute(_NEXT_TOKEN).scalar_one())

    def active_lease(self, device_id: str) -> LeaseRecord | None:
        with self._db.read() as connection:
            row = connection.execute(_HELD, {"device": device_id}).first()
        return None if row is None else lease_record(row._mapping)

    def lease_messages(self, device_id: str, limit: int) -> list[bytes]:
        query = (
            select(leases.c.message)
            .where(leases.c.device_id == device_id)
            .order_by(leases.c.fencing_token.desc())
            .limit(limit)
        )
        with self._db.read() as connection:
            return list(connection.execute(query).scalars())

    def list_leases(
        self,
        campaign_id: str = "",
        states: Sequence[LeaseState] = (),
        kinds: Sequence[LeaseKind] = (),
    ) -> list[LeaseRecord]:
        query = select(leases).order_by(leases.c.fencing_token)
        if campaign_id:
            query = query.where(leases.c.campaign_id == campaign_id)
        if states:
            query = query.where(leases.c.state.in_(states))
        if kinds:
            query = query.where(leases.c.kind.in_(kinds))
        with self._db.read() as connection:
            return [lease_record(row) for row in connection.execute(query).mappings()]

    def leased_tasks(self, fingerprint: str) -> frozenset[TaskKey]:
        with self._db.read() as connection:
            rows = connection.execute(_LEASED_TASKS, {"hardware": fingerprint})
            return frozenset(TaskKey(*row) for row in rows)

    def is_leased(self, campaign_id: str) -> bool:
        query = select(leases.c.lease_id).where(leases.c.campaign_id == campaign_id, IS_ACTIVE)
        with self._db.read() as connection:
            return connection.execute(query.limit(1)).first() is not None

    def renew_lease(
        self, lease_id: str, fencing_token: int, expires_at: float, *, device_id: str = ""
    ) -> None:
        this = {"lease": lease_id, "token": fencing_token, "device": device_id}
        with self._db.write(undoable=False) as connection:
            renewed = connection.execute(_RENEW, this | {"until": expires_at})
        if renewed.rowcount == 0:
            raise TuneFleetError(
                Reason.LEASE_LOST, f"lease {lease_id} has ended, or the token is not its"
            )

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
        this = {"lease": lease_id, "token": fencing_token, "device": device_id}
        end = {"ended": state, "why": error, "phases": dict(phase_seconds or {})}
        with self._db.write(undoable=False) as connection:
            connection.execute(_END, this | end)
            row = connection.execute(_LEASE, this).first()
        if row is None:
            raise TuneFleetError(
                Reason.LEASE_LOST, f"no lease {lease_id} with this token was ever granted"
            )
        ended = lease_record(row._mapping)
        if ended.state is not state:
            raise TuneFleetError(
                Reason.LEASE_LOST, f"lease {lease_id} has ended already: it is {ended.state}"
            )
        return ended

    def expire_leases(self, now: float) -> list[LeaseRecord]:
        return self._end_all(leases.c.expires_at <= now, LeaseState.EXPIRED)

    def cancel_leases(self, campaign_id: str) -> list[LeaseRecord]:
        return self._end_all(leases.c.campaign_id == campaign_id, LeaseState.CANCELLED)

    def _end_all(self, which: ColumnElement[bool], state: LeaseState) -> list[LeaseRecord]:
        ending = which & (leases.c.state == LeaseState.ACTIVE)
        with self._db.read() as connection:
            # Called every second and nearly always in vain: that must not cost a write.
            if connection.execute(select(leases.c.lease_id).where(ending)).first() is None:
                return []
        changes: dict[str, Any] = {"state": state, "best_s": _BEST_NOW}
        with self._db.write() as connection:
            rows = connection.execute(
                update(leases).where(ending).values(changes).returning(*leases.c)
            )
            return [lease_record(row) for row in rows.mappings()]


_KNOWN = select(
    exists().where(devices.c.device_id == bindparam("device")),
    exists().where(campaigns.c.campaign_id == bindparam("campaign")),
)


def _check_known(connection: Connection, lease: LeaseRecord) -> None:
    named = {"device": lease.device_id, "campaign": lease.campaign_id}
    device_known, campaign_known = connection.execute(_KNOWN, named).one()
    if not device_known:
        raise TuneFleetError(Reason.DEVICE_UNKNOWN, f"there is no device {lease.device_id!r}")
    if not campaign_known:
        raise TuneFleetError(Reason.CAMPAIGN_UNKNOWN, f"there is no campaign {lease.campaign_id!r}")
