"""Schedules that are measured again, in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, func, insert, select

from coordinator.state.database import Database
from coordinator.state.record_sets import find_record_set, get_record_set
from coordinator.state.records import LeaseKind, TaskKey
from coordinator.state.rows import unpack
from coordinator.state.store import Store
from coordinator.state.tables import leases, record_sets, replays, trial_payloads, trials
from coordinator.state.trial_records import KnownCandidate, MeasuredTrial, ReplayPair

_IDS_AT_ONCE = 500
"""SQLite takes a bounded number of parameters."""

_AFTER = trials.alias("after")
_SOURCE = trials.alias("source")
_SOURCE_SET = record_sets.alias("source_set")

_MEASURED_AGAIN = and_(
    _AFTER.c.campaign_id == replays.c.campaign_id,
    _AFTER.c.record_set_id == replays.c.record_set_id,
    _AFTER.c.candidate == replays.c.candidate,
)

_TIMES = (
    select(func.count())
    .select_from(_AFTER)
    .join(leases, leases.c.lease_id == _AFTER.c.lease_id)
    .where(_MEASURED_AGAIN, leases.c.kind == LeaseKind.REPLAY)
    .correlate(replays)
    .scalar_subquery()
)
"""How often a campaign has replayed what it planned."""


class SqlReplays(Store):
    """The part of the store that knows what is measured again."""

    _db: Database

    def measured_trials(self, key: TaskKey, campaign_id: str = "") -> list[MeasuredTrial]:
        with self._db.read() as connection:
            query = (
                select(trials.c.trial_id, trials.c.candidate, trials.c.latency_s)
                .where(
                    trials.c.record_set_id == find_record_set(connection, key),
                    trials.c.latency_s.is_not(None),
                )
                .order_by(trials.c.latency_s, trials.c.candidate)
            )
            if campaign_id:
                query = query.where(trials.c.campaign_id == campaign_id)
            return [MeasuredTrial(*row) for row in connection.execute(query)]

    def plan_replays(self, campaign_id: str, key: TaskKey, trial_ids: Sequence[str]) -> None:
        with self._db.write() as connection:
            record_set = get_record_set(connection, key)
            planned = set(
                connection.execute(
                    select(replays.c.candidate).where(
                        replays.c.campaign_id == campaign_id,
                        replays.c.record_set_id == record_set,
                    )
                ).scalars()
            )
            for start in range(0, len(trial_ids), _IDS_AT_ONCE):
                sources = connection.execute(
                    select(trials.c.seq, trials.c.candidate)
                    .where(trials.c.trial_id.in_(trial_ids[start : start + _IDS_AT_ONCE]))
                    .order_by(trials.c.seq)
                ).all()
                for source in sources:
                    if source.candidate not in planned:
                        planned.add(source.candidate)
                        connection.execute(
                            insert(replays).values(
                                campaign_id=campaign_id,
                                record_set_id=record_set,
                                candidate=source.candidate,
                                source_seq=source.seq,
                            )
                        )

    def pending_replays(
        self, campaign_id: str, key: TaskKey, limit: int, *, times: int = 1
    ) -> list[KnownCandidate]:
        with self._db.read() as connection:
            rows = connection.execute(
                select(replays.c.candidate, trial_payloads.c.trace, _SOURCE.c.latency_s)
                .join_from(replays, _SOURCE, _SOURCE.c.seq == replays.c.source_seq)
                .join(trial_payloads, trial_payloads.c.trial_seq == replays.c.source_seq)
                .where(
                    replays.c.campaign_id == campaign_id,
                    replays.c.record_set_id == find_record_set(connection, key),
                    times > _TIMES,
                )
                .order_by(_SOURCE.c.latency_s, replays.c.candidate)
                .limit(limit)
            )
            return [
                KnownCandidate(row.candidate, unpack(row.trace).decode(), row.latency_s)
                for row in rows
            ]

    def replay_pairs(self, campaign_id: str) -> list[ReplayPair]:
        query = (
            select(
                record_sets.c.workload,
                record_sets.c.target,
                record_sets.c.fingerprint,
                replays.c.candidate,
                _SOURCE.c.latency_s.label("before_s"),
                _SOURCE_SET.c.target.label("before_target"),
                _SOURCE_SET.c.fingerprint.label("before_fingerprint"),
                _AFTER.c.latency_s.label("after_s"),
                _AFTER.c.verdict,
            )
            .join_from(replays, record_sets)
            .join(_SOURCE, _SOURCE.c.seq == replays.c.source_seq)
            .join(_SOURCE_SET, _SOURCE_SET.c.record_set_id == _SOURCE.c.record_set_id)
            .outerjoin(_AFTER, _MEASURED_AGAIN)
            .where(replays.c.campaign_id == campaign_id)
            .order_by(replays.c.record_set_id, _SOURCE.c.latency_s, replays.c.candidate)
        )
        with self._db.read() as connection:
            return [
                ReplayPair(
                    key=TaskKey(row.workload, row.target, row.fingerprint),
                    candidate=row.candidate,
                    before_s=row.before_s,
                    before_target=row.before_target,
                    before_fingerprint=row.before_fingerprint,
                    after_s=row.after_s,
                    verdict=row.verdict or "",
                )
                for row in connection.execute(query)
            ]
