"""Storing trials in SQL, each exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from coordinator.state.database import Database
from coordinator.state.record_sets import Measured, get_record_set, note_baselines, note_best
from coordinator.state.records import LeaseKind, TaskKey
from coordinator.state.store import IngestOutcome, PreparedReport, Store
from coordinator.state.tables import devices, leases, tasks, trials
from coordinator.state.trial_rows import Place, ReadyTrial, insert_trials
from tunefleet.leases import is_baseline
from tunefleet.trials import Trial


@dataclass(frozen=True)
class _Rows(PreparedReport):
    """A report with its trials as they are stored."""

    ready: Mapping[str, ReadyTrial]
    """By name."""


class SqlIngest(Store):
    """The part of the store that takes trials in."""

    _db: Database

    def prepare_report(
        self, device_id: str, lease_id: str, fencing_token: int, trials: Sequence[Trial]
    ) -> PreparedReport:
        return _Rows(
            device_id,
            lease_id,
            fencing_token,
            tuple(trials),
            # Of a trial that is there twice the first counts.
            ready={trial.trial_id: ReadyTrial.of(trial) for trial in reversed(trials)},
        )

    def ingest_reports(self, reports: Sequence[PreparedReport], now: float) -> list[IngestOutcome]:
        with self._db.write(undoable=False) as connection:
            known = _leases(connection, reports)
            stored = _stored_under(connection, reports)
            outcomes, batches = [], []
            for report in reports:
                assert isinstance(report, _Rows)
                lease = known.get(report.lease_id)
                refusal = _refusal(lease, report)
                if lease is None or refusal:
                    outcomes.append(
                        IngestOutcome((), {trial.trial_id: refusal for trial in report.trials}, 0)
                    )
                    continue
                batch = _Batch.of(report, lease, stored)
                batches.append(batch)
                outcomes.append(batch.outcome)
            _store(connection, [batch for batch in batches if batch.new], now)
        return outcomes


_LEASE_COLUMNS = tuple(
    leases.c[name]
    for name in (
        *("lease_id", "device_id", "fencing_token", "kind", "campaign_id"),
        *("workload", "target", "fingerprint"),
    )
)
_LEASES = select(*_LEASE_COLUMNS).where(leases.c.lease_id.in_(bindparam("names", expanding=True)))
_STORED = select(trials.c.trial_id, trials.c.lease_id).where(
    trials.c.trial_id.in_(bindparam("names", expanding=True))
)
_COUNT_IN_TASKS = (
    update(tasks)
    .where(
        tasks.c.campaign_id == bindparam("of_campaign"),
        tasks.c.record_set_id == bindparam("of_record_set"),
    )
    .values(
        trials=tasks.c.trials + bindparam("more"),
        measured=tasks.c.measured + bindparam("more_measured"),
    )
)
_COUNT_IN_LEASES = (
    update(leases)
    .where(leases.c.lease_id == bindparam("of_lease"))
    .values(trials=leases.c.trials + bindparam("more"))
)
_COUNT_IN_DEVICES = (
    update(devices)
    .where(devices.c.device_id == bindparam("of_device"))
    .values(trials=devices.c.trials + bindparam("more"))
)


def _leases(connection: Connection, reports: Sequence[PreparedReport]) -> dict[str, Row[Any]]:
    names = list({report.lease_id for report in reports})
    return {row.lease_id: row for row in connection.execute(_LEASES, {"names": names})}


def _refusal(lease: Row[Any] | None, report: PreparedReport) -> str:
    if lease is None or lease.device_id != report.device_id:
        return "the lease never was this device's"
    if lease.fencing_token != report.fencing_token:
        return "the fencing token is not the lease's"
    measures = LeaseKind(lease.kind).measures
    return "" if measures else "the lease is not for measuring candidates"


def _stored_under(connection: Connection, reports: Sequence[PreparedReport]) -> dict[str, str]:
    """Return the lease of each trial that is stored already."""
    names = list({trial.trial_id for report in reports for trial in report.trials})
    return {row.trial_id: row.lease_id for row in connection.execute(_STORED, {"names": names})}


@dataclass(frozen=True)
class _Batch:
    """What of a report is to be stored."""

    lease: Row[Any]
    report: _Rows
    new: list[Trial]
    outcome: IngestOutcome

    @classmethod
    def of(cls, report: _Rows, lease: Row[Any], stored: dict[str, str]) -> _Batch:
        """Sort out a report's trials, and note the new ones among those that are stored."""
        new: dict[str, Trial] = {}
        rejected: dict[str, str] = {}
        for trial in report.trials:
            if trial.lease_id != report.lease_id:
                rejected[trial.trial_id] = "it names another lease than the report"
            elif stored.get(trial.trial_id, report.lease_id) != report.lease_id:
                rejected[trial.trial_id] = "it is stored under another lease"
            elif trial.trial_id not in stored:
                new.setdefault(trial.trial_id, trial)
        fresh = [trial for name, trial in new.items() if name not in rejected]
        stored |= {trial.trial_id: report.lease_id for trial in fresh}
        names = tuple(t.trial_id for t in report.trials if t.trial_id not in rejected)
        return cls(
            lease, report, fresh, IngestOutcome(names, rejected, len(fresh), lease.campaign_id)
        )


def _store(connection: Connection, batches: Sequence[_Batch], now: float) -> None:
    if not batches:
        return
    sets = _record_sets(connection, batches)
    placed = []
    for batch, record_set in zip(batches, sets, strict=True):
        lease = batch.lease
        place = Place(lease.lease_id, lease.device_id, lease.campaign_id, record_set)
        placed += [(place, batch.report.ready[trial.trial_id]) for trial in batch.new]
    insert_trials(connection, placed, now)
    note_latencies(
        connection, [(number, batch.new) for number, batch in zip(sets, batches, strict=True)]
    )
    _count(connection, batches, sets)


def _record_sets(connection: Connection, batches: Sequence[_Batch]) -> list[int]:
    keys = [TaskKey(b.lease.workload, b.lease.target, b.lease.fingerprint) for b in batches]
    numbers = {key: get_record_set(connection, key) for key in set(keys)}
    return [numbers[key] for key in keys]


def _count(connection: Connection, batches: Sequence[_Batch], sets: Sequence[int]) -> None:
    by_task: Counter[tuple[str, int]] = Counter()
    measured: Counter[tuple[str, int]] = Counter()
    by_lease: Counter[str] = Counter()
    by_device: Counter[str] = Counter()
    for batch, record_set in zip(batches, sets, strict=True):
        count, task = len(batch.new), (batch.lease.campaign_id, record_set)
        by_task[task] += count
        measured[task] += sum(trial.latency_s is not None for trial in batch.new)
        by_lease[batch.lease.lease_id] += count
        by_device[batch.lease.device_id] += count
    connection.execute(
        _COUNT_IN_TASKS,
        [
            {"of_campaign": c, "of_record_set": r, "more": n, "more_measured": measured[c, r]}
            for (c, r), n in by_task.items()
        ],
    )
    connection.execute(_COUNT_IN_LEASES, [{"of_lease": k, "more": n} for k, n in by_lease.items()])
    connection.execute(
        _COUNT_IN_DEVICES, [{"of_device": k, "more": n} for k, n in by_device.items()]
    )


def note_latencies(connection: Connection, batches: Iterable[tuple[int, Iterable[Trial]]]) -> None:
    """Take new trials into the summaries of their record sets, given by number."""
    found: dict[int, Measured] = {}
    baselines: list[tuple[int, float]] = []
    for number, batch in batches:
        for trial in batch:
            latency_s = trial.latency_s
            if latency_s is None:
                continue
            of_set = found.setdefault(number, Measured(trial.candidate, latency_s))
            of_set.candidates.add(trial.candidate)
            if latency_s < of_set.latency_s:
                of_set.candidate, of_set.latency_s = trial.candidate, latency_s
            if is_baseline(trial.trace):
                baselines.append((number, latency_s))
    note_best(connection, found)
    note_baselines(connection, baselines)
