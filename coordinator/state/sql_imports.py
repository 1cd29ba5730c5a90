"""Storing trials of other coordinators in SQL, each exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select, update

from coordinator.state.database import Database
from coordinator.state.record_sets import get_record_set
from coordinator.state.records import LeaseKind, LeaseState, TaskKey
from coordinator.state.sql_ingest import note_latencies
from coordinator.state.store import IngestOutcome, Store
from coordinator.state.tables import campaigns, devices, leases, tasks, trials
from coordinator.state.trial_records import TrialRecord
from coordinator.state.trial_rows import Place, ReadyTrial, insert_trials
from tunefleet.errors import Reason, TuneFleetError


class SqlImports(Store):
    """The part of the store that takes other coordinators' trials in."""

    _db: Database

    def import_trials(
        self,
        campaign_id: str,
        trials: Sequence[TrialRecord],
        now: float,
    ) -> IngestOutcome:
        with self._db.write() as connection:
            _check_known(connection, campaign_id, trials)
            batch = _Import(connection, campaign_id, now)
            batch.sort(trials)
            batch.store()
        stored = tuple(r.trial.trial_id for r in trials if r.trial.trial_id not in batch.rejected)
        return IngestOutcome(stored, batch.rejected, len(batch.new), campaign_id)


class _Import:
    """One batch on its way into the tables."""

    def __init__(self, connection: Connection, campaign_id: str, now: float) -> None:
        self._connection = connection
        self._campaign_id = campaign_id
        self._now = now
        self._sets: dict[TaskKey, int] = {}
        self.new: list[TrialRecord] = []
        self.rejected: dict[str, str] = {}

    def sort(self, batch: Sequence[TrialRecord]) -> None:
        """Tell what is new from what is stored already and what contradicts that."""
        stored = self._stored(batch)
        granted = self._leases({record.trial.lease_id for record in batch})
        for record in batch:
            name = record.trial.trial_id
            meant = (record.trial.candidate, self._record_set(record.key))
            known = stored.setdefault(name, meant)
            lease = granted.get(record.trial.lease_id)
            if known != meant:
                self.rejected[name] = "another trial is stored under its name"
            elif known is not meant:
                continue
            elif lease is None:
                self._add_lease(record)
                granted[record.trial.lease_id] = _lease_of(record)
                self.new.append(record)
            elif lease[0] != LeaseKind.IMPORT:
                self.rejected[name] = "its lease is one of this coordinator's own"
            elif lease != _lease_of(record):
                self.rejected[name] = "its lease was for another task or device"
            else:
                self.new.append(record)

    def store(self) -> None:
        """Write what is new."""
        if not self.new:
            return
        placed = [
            (
                Place(
                    record.trial.lease_id,
                    record.device_id,
                    self._campaign_id,
                    self._record_set(record.key),
                ),
                ReadyTrial.of(record.trial),
            )
            for record in self.new
        ]
        insert_trials(self._connection, placed, self._now)
        self._count()

    def _count(self) -> None:
        by_key: dict[TaskKey, list[TrialRecord]] = {}
        for record in self.new:
            by_key.setdefault(record.key, []).append(record)
        for key, records in by_key.items():
            record_set = self._record_set(key)
            batch = [record.trial for record in records]
            note_latencies(self._connection, [(record_set, batch)])
            measured = sum(trial.latency_s is not None for trial in batch)
            self._connection.execute(
                update(tasks)
                .where(
                    tasks.c.campaign_id == self._campaign_id, tasks.c.record_set_id == record_set
                )
                .values(trials=tasks.c.trials + len(batch), measured=tasks.c.measured + measured)
            )
        for device_id, count in Counter(record.device_id for record in self.new).items():
            self._connection.execute(
                update(devices)
                .where(devices.c.device_id == device_id)
                .values(trials=devices.c.trials + count)
            )

    def _record_set(self, key: TaskKey) -> int:
        if key not in self._sets:
            self._sets[key] = get_record_set(self._connection, key)
        return self._sets[key]

    def _stored(self, batch: Iterable[TrialRecord]) -> dict[str, tuple[str, int]]:
        names = {record.trial.trial_id for record in batch}
        rows = self._connection.execute(
            select(trials.c.trial_id, trials.c.candidate, trials.c.record_set_id).where(
                trials.c.trial_id.in_(names)
            )
        )
        return {row.trial_id: (row.candidate, row.record_set_id) for row in rows}

    def _leases(self, names: set[str]) -> dict[str, tuple[str, str, TaskKey]]:
        columns = (leases.c.lease_id, leases.c.kind, leases.c.device_id)
        key = (leases.c.workload, leases.c.target, leases.c.fingerprint)
        rows = self._connection.execute(select(*columns, *key).where(leases.c.lease_id.in_(names)))
        return {
            row.lease_id: (
                row.kind,
                row.device_id,
                TaskKey(row.workload, row.target, row.fingerprint),
            )
            for row in rows
        }

    def _add_lease(self, record: TrialRecord) -> None:
        values: dict[str, Any] = {
            "lease_id": record.trial.lease_id,
            "fencing_token": 0,
            "device_id": record.device_id,
            "campaign_id": self._campaign_id,
            "kind": LeaseKind.IMPORT,
            "target": record.key.target,
            "fingerprint": record.key.fingerprint,
            "workload": record.key.workload,
            "state": LeaseState.DONE,
            "granted_at": record.trial.started_at_unix_s,
            "expires_at": record.trial.started_at_unix_s,
            "error": "",
            "phase_seconds": {},
            "message": record.campaign_id.encode(),
        }
        self._connection.execute(insert(leases).values(values))


def _lease_of(record: TrialRecord) -> tuple[str, str, TaskKey]:
    return (LeaseKind.IMPORT, record.device_id, record.key)


def _check_known(connection: Connection, campaign_id: str, batch: Iterable[TrialRecord]) -> None:
    campaign = select(campaigns.c.seq).where(campaigns.c.campaign_id == campaign_id)
    if connection.execute(campaign).first() is None:
        raise TuneFleetError(Reason.CAMPAIGN_UNKNOWN, f"there is no campaign {campaign_id!r}")
    wanted = {record.device_id for record in batch}
    known = set(
        connection.execute(
            select(devices.c.device_id).where(devices.c.device_id.in_(wanted))
        ).scalars()
    )
    if wanted - known:
        missing = ", ".join(sorted(wanted - known))
        raise TuneFleetError(Reason.DEVICE_UNKNOWN, f"there is no device {missing}")
