"""Reading trials whole, for datasets, in SQL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, func, select

from coordinator.state.database import Database
from coordinator.state.records import LeaseKind, TaskKey
from coordinator.state.rows import unpack
from coordinator.state.store import Store
from coordinator.state.tables import (
    device_profiles,
    devices,
    leases,
    record_sets,
    tasks,
    trial_payloads,
    trials,
)
from coordinator.state.trial_records import (
    ProfileRecord,
    TrialCount,
    TrialFilter,
    TrialRecord,
    WorkloadRecord,
)
from tunefleet.devices import DeviceProfile
from tunefleet.trials import Conditions, ProgramFeatures, Trial, Verdict

_PAGE_ROWS = 500
"""Trials in memory at a time; some 40 KB each with features and trace."""

_TASK = and_(
    tasks.c.campaign_id == trials.c.campaign_id, tasks.c.record_set_id == trials.c.record_set_id
)


class SqlDatasets(Store):
    """The part of the store that gives trials out whole."""

    _db: Database

    def trial_records(self, chosen: TrialFilter) -> Iterator[TrialRecord]:
        wanted = _conditions(chosen)
        sets = (
            select(record_sets.c.record_set_id)
            .where(
                record_sets.c.record_set_id.in_(
                    select(trials.c.record_set_id).join_from(trials, record_sets).where(*wanted)
                )
            )
            # Neighbours that are alike compress well.
            .order_by(record_sets.c.workload, record_sets.c.target, record_sets.c.fingerprint)
        )
        with self._db.read() as connection:
            numbers = list(connection.execute(sets).scalars())
        for number in numbers:
            yield from self._records_of(record_page(_PAGE_ROWS).where(*wanted), number)

    def _records_of(self, query: Select[Any], record_set: int) -> Iterator[TrialRecord]:
        last = 0
        while True:
            # A transaction a page: whoever stops reading half-way holds nothing.
            with self._db.read() as connection:
                page = connection.execute(
                    query.where(trials.c.record_set_id == record_set, trials.c.seq > last)
                ).all()
            for row in page:
                yield trial_record(row)
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].seq

    def count_trials_by_verdict(self, chosen: TrialFilter) -> list[TrialCount]:
        groups = (
            trials.c.record_set_id,
            trials.c.campaign_id,
            trials.c.device_id,
            trials.c.verdict,
        )
        counts = (
            select(
                *groups,
                func.count().label("trials"),
                func.count(trial_payloads.c.features).label("featured"),
                func.min(trials.c.latency_s).label("fastest_s"),
                func.max(trials.c.latency_s).label("slowest_s"),
            )
            .join_from(trials, record_sets)
            .join(trial_payloads, trial_payloads.c.trial_seq == trials.c.seq)
            .where(*_conditions(chosen))
            .group_by(*groups)
            .subquery()
        )
        query = (
            select(counts, record_sets, tasks.c.name, tasks.c.sources)
            .join_from(counts, record_sets, record_sets.c.record_set_id == counts.c.record_set_id)
            .outerjoin(
                tasks,
                and_(
                    tasks.c.campaign_id == counts.c.campaign_id,
                    tasks.c.record_set_id == counts.c.record_set_id,
                ),
            )
            .order_by(record_sets.c.workload, record_sets.c.target, record_sets.c.fingerprint)
        )
        with self._db.read() as connection:
            return [
                TrialCount(
                    key=TaskKey(row.workload, row.target, row.fingerprint),
                    device_id=row.device_id,
                    task=row.name or "",
                    sources=row.sources or {},
                    verdict=row.verdict,
                    trials=row.trials,
                    featured=row.featured,
                    fastest_s=row.fastest_s,
                    slowest_s=row.slowest_s,
                )
                for row in connection.execute(query)
            ]

    def list_workloads(self) -> list[WorkloadRecord]:
        query = (
            select(
                record_sets.c.workload,
                tasks.c.workload_digest,
                tasks.c.name,
                tasks.c.flops,
                tasks.c.sources,
            )
            .join_from(tasks, record_sets)
            .order_by(record_sets.c.workload, tasks.c.seq)
        )
        found: dict[str, WorkloadRecord] = {}
        with self._db.read() as connection:
            for row in connection.execute(query):
                known = found.get(row.workload)
                found[row.workload] = WorkloadRecord(
                    workload=row.workload,
                    digest=(known and known.digest) or row.workload_digest,
                    name=(known and known.name) or row.name,
                    flops=(known and known.flops) or row.flops,
                    sources={**(known.sources if known else {}), **row.sources},
                )
        return list(found.values())

    def list_profiles(self) -> list[ProfileRecord]:
        query = (
            select(device_profiles.c.device_id, device_profiles.c.profile, devices.c.name)
            .join_from(device_profiles, devices)
            .order_by(devices.c.name, device_profiles.c.fingerprint)
        )
        with self._db.read() as connection:
            return [
                ProfileRecord(row.device_id, row.name, DeviceProfile.from_json(row.profile))
                for row in connection.execute(query)
            ]


def _conditions(chosen: TrialFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if chosen.campaign_ids:
        conditions.append(trials.c.campaign_id.in_(chosen.campaign_ids))
    if chosen.device_ids:
        conditions.append(trials.c.device_id.in_(chosen.device_ids))
    if chosen.targets:
        conditions.append(record_sets.c.target.in_(chosen.targets))
    return conditions


def record_page(rows: int) -> Select[Any]:
    """Return a query for so many whole trials, the oldest first."""
    return (
        select(
            trials,
            trial_payloads.c.stores,
            trial_payloads.c.features,
            trial_payloads.c.trace,
            record_sets.c.workload,
            record_sets.c.target,
            record_sets.c.fingerprint,
            tasks.c.name.label("task"),
            tasks.c.sources,
            leases.c.kind.label("lease_kind"),
            leases.c.message,
        )
        .join_from(trials, trial_payloads)
        .join(record_sets, record_sets.c.record_set_id == trials.c.record_set_id)
        .outerjoin(tasks, _TASK)
        # Other leases' messages hold every trace that a round began with.
        .outerjoin(
            leases,
            and_(leases.c.lease_id == trials.c.lease_id, leases.c.kind == LeaseKind.IMPORT),
        )
        .order_by(trials.c.seq)
        .limit(rows)
    )


def trial_record(row: Row[Any]) -> TrialRecord:
    """Read a row of :func:`record_page`."""
    features = None
    if row.features is not None:
        features = ProgramFeatures(row.stores, unpack(row.features))
    return TrialRecord(
        key=TaskKey(row.workload, row.target, row.fingerprint),
        device_id=row.device_id,
        campaign_id=row.campaign_id if row.message is None else row.message.decode(),
        task=row.task or "",
        sources=row.sources or {},
        trial=Trial(
            trial_id=row.trial_id,
            lease_id=row.lease_id,
            candidate=row.candidate,
            trace=unpack(row.trace).decode(),
            verdict=Verdict(row.verdict),
            samples_s=tuple(row.samples_s),
            error=row.error,
            features=features,
            predicted=row.predicted,
            model_version=row.model_version,
            explored=row.explored,
            build_s=row.build_s,
            run_s=row.run_s,
            started_at_unix_s=row.started_at,
            conditions=Conditions(**row.conditions),
        ),
    )
