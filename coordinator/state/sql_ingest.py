"""Storing trials in SQL, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from coordinator.state.database import Database
from coordinator.state.record_sets import get_record_set, note_baseline, note_best
from coordinator.state.records import LeaseKind, TaskKey
from coordinator.state.rows import pack
from coordinator.state.store import IngestOutcome, Store
from coordinator.state.tables import devices, leases, tasks, trial_payloads, trials
from tunefleet.leases import is_baseline
from tunefleet.trials import Trial


class SqlIngest(Store):
    """The part of the store that takes trials in."""

    _db: Database

    def ingest_trials(
        self,
        device_id: str,
        lease_id: str,
        fencing_token: int,
        trials: Sequence[Trial],
        now: float,
    ) -> IngestOutcome:
        with self._db.write() as connection:
            lease = connection.execute(
                select(*_LEASE_COLUMNS).where(leases.c.lease_id == lease_id)
            ).first()
            refusal = _refusal(None if lease is None else lease._mapping, device_id, fencing_token)
            if lease is None or refusal:
                return IngestOutcome((), {trial.trial_id: refusal for trial in trials}, 0)
            batch = _Batch.of(trials, lease_id, _stored_under(connection, trials))
            _store(connection, lease._mapping, batch.new, now)
        stored = tuple(t.trial_id for t in trials if t.trial_id not in batch.rejected)
        return IngestOutcome(stored, batch.rejected, len(batch.new), lease.campaign_id)


_LEASE_COLUMNS = tuple(column for column in leases.c if column.name != "message")


def _refusal(lease: RowMapping | None, device_id: str, fencing_token: int) -> str:
    if lease is None or lease["device_id"] != device_id:
        return "the lease never was this device's"
    if lease["fencing_token"] != fencing_token:
        return "the fencing token is not the lease's"
    measures = LeaseKind(lease["kind"]).measures
    return "" if measures else "the lease is not for measuring candidates"


def _stored_under(connection: Connection, batch: Sequence[Trial]) -> dict[str, str]:
    """Return the lease of each trial that is stored already."""
    names = {trial.trial_id for trial in batch}
    rows = connection.execute(
        select(trials.c.trial_id, trials.c.lease_id).where(trials.c.trial_id.in_(names))
    )
    return {row.trial_id: row.lease_id for row in rows}


@dataclass(frozen=True)
class _Batch:
    new: list[Trial]
    rejected: dict[str, str]

    @classmethod
    def of(cls, batch: Iterable[Trial], lease_id: str, stored: Mapping[str, str]) -> _Batch:
        new: dict[str, Trial] = {}
        rejected: dict[str, str] = {}
        for trial in batch:
            if trial.lease_id != lease_id:
                rejected[trial.trial_id] = "it names another lease than the report"
            elif stored.get(trial.trial_id, lease_id) != lease_id:
                rejected[trial.trial_id] = "it is stored under another lease"
            elif trial.trial_id not in stored:
                new.setdefault(trial.trial_id, trial)
        return cls([trial for name, trial in new.items() if name not in rejected], rejected)


def _store(connection: Connection, lease: RowMapping, batch: Sequence[Trial], now: float) -> None:
    if not batch:
        return
    key = TaskKey(lease["workload"], lease["target"], lease["fingerprint"])
    record_set = get_record_set(connection, key)
    origin = {
        "lease_id": lease["lease_id"],
        "device_id": lease["device_id"],
        "campaign_id": lease["campaign_id"],
        "record_set_id": record_set,
        "received_at": now,
    }
    seqs = connection.execute(
        insert(trials).returning(trials.c.seq, sort_by_parameter_order=True),
        [trial_values(trial) | origin for trial in batch],
    ).scalars()
    payloads = [payload_values(t, seq) for t, seq in zip(batch, seqs, strict=True)]
    connection.execute(insert(trial_payloads), payloads)
    note_latencies(connection, record_set, batch)
    measured = sum(trial.latency_s is not None for trial in batch)
    connection.execute(
        update(tasks)
        .where(tasks.c.campaign_id == lease["campaign_id"], tasks.c.record_set_id == record_set)
        .values(trials=tasks.c.trials + len(batch), measured=tasks.c.measured + measured)
    )
    connection.execute(
        update(leases)
        .where(leases.c.lease_id == lease["lease_id"])
        .values(trials=leases.c.trials + len(batch))
    )
    connection.execute(
        update(devices)
        .where(devices.c.device_id == lease["device_id"])
        .values(trials=devices.c.trials + len(batch))
    )


def note_latencies(connection: Connection, record_set: int, batch: Iterable[Trial]) -> None:
    """Take new trials, which are stored already, into their record set's summary."""
    measured = [(t.latency_s, t) for t in batch if t.latency_s is not None]
    baselines = [latency_s for latency_s, t in measured if is_baseline(t.trace)]
    if measured:
        latency_s, fastest = min(measured, key=lambda pair: pair[0])
        names = {t.candidate for _, t in measured}
        note_best(connection, record_set, fastest.candidate, latency_s, names)
    if baselines:
        note_baseline(connection, record_set, min(baselines))


def trial_values(trial: Trial) -> dict[str, Any]:
    """Return a trial's own columns, without where it belongs."""
    return {
        "trial_id": trial.trial_id,
        "candidate": trial.candidate,
        "verdict": trial.verdict,
        "latency_s": trial.latency_s,
        "noise": trial.noise,
        "predicted": trial.predicted,
        "model_version": trial.model_version,
        "explored": trial.explored,
        "samples_s": list(trial.samples_s),
        "error": trial.error,
        "build_s": trial.build_s,
        "run_s": trial.run_s,
        "started_at": trial.started_at_unix_s,
        "conditions": asdict(trial.conditions),
    }


def payload_values(trial: Trial, seq: int) -> dict[str, Any]:
    """Return the columns of what is kept apart from a trial."""
    features = trial.features
    return {
        "trial_seq": seq,
        "stores": None if features is None else features.stores,
        "features": None if features is None else pack(features.data),
        "trace": pack(trial.trace.encode()),
    }
