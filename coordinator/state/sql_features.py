"""Features that come after their trials, in SQL.

A trial that waits has neither features nor a number of stores; one that waits in vain has none of
its features, and 0 stores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import and_, func, select, update

from coordinator.state.database import Database
from coordinator.state.record_sets import find_record_set
from coordinator.state.records import TaskKey
from coordinator.state.rows import pack
from coordinator.state.sql_datasets import record_page, trial_record
from coordinator.state.store import Store
from coordinator.state.tables import record_sets, tasks, trial_payloads, trials
from coordinator.state.trial_records import TrialRecord
from tunefleet.trials import ProgramFeatures

_WAITING = and_(trial_payloads.c.features.is_(None), trial_payloads.c.stores.is_(None))
_WITH_MODULE = tasks.c.workload_digest != ""


class SqlFeatures(Store):
    """The part of the store that completes trials with features."""

    _db: Database

    def count_unfeatured(self, campaign_id: str) -> int:
        query = (
            select(func.count())
            .select_from(trials)
            .join(trial_payloads, trial_payloads.c.trial_seq == trials.c.seq)
            .join(tasks, tasks.c.record_set_id == trials.c.record_set_id)
            .where(tasks.c.campaign_id == campaign_id, _WAITING, _WITH_MODULE)
        )
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def unfeatured(
        self, campaign_id: str, limit: int, besides: Collection[TaskKey] = ()
    ) -> list[TrialRecord]:
        sets = (
            select(record_sets)
            .distinct()
            .join_from(trials, trial_payloads)
            .join(tasks, tasks.c.record_set_id == trials.c.record_set_id)
            .join(record_sets, record_sets.c.record_set_id == trials.c.record_set_id)
            .where(tasks.c.campaign_id == campaign_id, _WAITING, _WITH_MODULE)
            .order_by(record_sets.c.record_set_id)
        )
        with self._db.read() as connection:
            for row in connection.execute(sets):
                if TaskKey(row.workload, row.target, row.fingerprint) not in besides:
                    page = record_page(limit).where(
                        trials.c.record_set_id == row.record_set_id, _WAITING
                    )
                    records = [trial_record(found) for found in connection.execute(page)]
                    return list({r.trial.candidate: r for r in reversed(records)}.values())[::-1]
        return []

    def put_features(
        self,
        key: TaskKey,
        features: Mapping[str, ProgramFeatures],
        impossible: Mapping[str, str],
    ) -> None:
        changes: dict[str, dict[str, Any]] = {
            candidate: {"stores": found.stores, "features": pack(found.data)}
            for candidate, found in features.items()
            if found.stores
        }
        for candidate in {*features, *impossible} - changes.keys():
            changes[candidate] = {"stores": 0, "features": None}
        with self._db.write() as connection:
            record_set = find_record_set(connection, key)
            for candidate, values in changes.items():
                these = select(trials.c.seq).where(
                    trials.c.record_set_id == record_set, trials.c.candidate == candidate
                )
                connection.execute(
                    update(trial_payloads)
                    .where(trial_payloads.c.trial_seq.in_(these), _WAITING)
                    .values(**values)
                )
            for candidate, why in impossible.items():
                connection.execute(
                    update(trials)
                    .where(
                        trials.c.record_set_id == record_set,
                        trials.c.candidate == candidate,
                        trials.c.error == "",
                    )
                    .values(error=f"no features: {why}")
                )
