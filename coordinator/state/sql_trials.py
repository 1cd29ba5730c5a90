"""Reading trials in SQL."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, func, select

from coordinator.state.database import Database
from coordinator.state.one_row import in_one_row, texts
from coordinator.state.ranking import fastest_first
from coordinator.state.record_sets import find_record_set
from coordinator.state.records import TaskKey
from coordinator.state.rows import unpack
from coordinator.state.store import Store
from coordinator.state.tables import device_profiles, record_sets, trial_payloads, trials
from coordinator.state.trial_records import KnownCandidate, LatencyPoint, TrainingRow
from tunefleet.devices import DeviceProfile
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.trials import Verdict

_PAGE_ROWS = 500
"""Rows of training data in memory at a time; 22 KB each at the most."""


LOSSES_OF_THE_QUARANTINED = 2
"""A device may go down by chance while some candidate runs, but hardly twice with the same."""


_SEEN = func.sum(case((trials.c.verdict == Verdict.LOST, 0), else_=1))
_TRIED = in_one_row(
    select(trials.c.candidate)
    .where(trials.c.record_set_id == bindparam("record_set"))
    .group_by(trials.c.candidate)
    .having((_SEEN > 0) | (func.count() >= LOSSES_OF_THE_QUARANTINED))
)
_TRACES = select(trial_payloads.c.trial_seq, trial_payloads.c.trace).where(
    trial_payloads.c.trial_seq.in_(bindparam("seqs", expanding=True))
)


class SqlTrials(Store):
    """The part of the store that gives trials out."""

    _db: Database

    def tried_candidates(self, key: TaskKey) -> frozenset[str]:
        with self._db.read() as connection:
            record_set = find_record_set(connection, key)
            return texts(connection, _TRIED, {"record_set": record_set})

    def best_candidates(self, key: TaskKey, limit: int) -> list[KnownCandidate]:
        with self._db.read() as connection:
            fastest = fastest_first(connection, find_record_set(connection, key), limit)
            traces = _traces(connection, [found.seq for found in fastest])
        return [KnownCandidate(f.candidate, traces[f.seq], f.latency_s) for f in fastest]

    def latency_points(self, campaign_id: str) -> list[LatencyPoint]:
        query = _POINTS.where(trials.c.campaign_id == campaign_id).order_by(trials.c.seq)
        with self._db.read() as connection:
            return [_latency_point(row) for row in connection.execute(query)]

    def last_predictions(
        self, key: TaskKey, versions: Collection[str], limit: int
    ) -> list[LatencyPoint]:
        with self._db.read() as connection:
            query = (
                _POINTS.where(
                    trials.c.record_set_id == find_record_set(connection, key),
                    trials.c.model_version.in_(versions),
                    trials.c.predicted.is_not(None),
                    trials.c.latency_s.is_not(None),
                )
                .order_by(trials.c.seq.desc())
                .limit(limit)
            )
            return [_latency_point(row) for row in connection.execute(query)]

    def count_trials(self, campaign_id: str = "") -> int:
        query = select(func.count()).select_from(trials)
        if campaign_id:
            query = query.where(trials.c.campaign_id == campaign_id)
        with self._db.read() as connection:
            return int(connection.execute(query).scalar_one())

    def training_rows(self) -> Iterator[TrainingRow]:
        hardware = lru_cache(maxsize=1024)(_hardware)
        last = 0
        while True:
            # A transaction a page: whoever stops reading half-way holds nothing.
            with self._db.read() as connection:
                page = connection.execute(_TRAINING_PAGE, {"after": last}).all()
            for row in page:
                yield _training_row(row, hardware(row.profile, row.target))
            if len(page) < _PAGE_ROWS:
                return
            last = page[-1].seq


_POINTS: Select[Any] = select(
    trials.c.received_at,
    trials.c.candidate,
    trials.c.latency_s,
    trials.c.verdict,
    trials.c.predicted,
    trials.c.model_version,
    record_sets.c.workload,
    record_sets.c.target,
    record_sets.c.fingerprint,
).join_from(trials, record_sets)


def _latency_point(row: Row[Any]) -> LatencyPoint:
    return LatencyPoint(
        key=TaskKey(row.workload, row.target, row.fingerprint),
        received_at_unix_s=row.received_at,
        candidate=row.candidate,
        latency_s=row.latency_s,
        verdict=row.verdict,
        predicted=row.predicted,
        model_version=row.model_version,
    )


def _training_page() -> Select[Any]:
    profile = (device_profiles.c.device_id == trials.c.device_id) & (
        device_profiles.c.fingerprint == record_sets.c.fingerprint
    )
    return (
        select(
            trials.c.seq,
            trials.c.candidate,
            trials.c.latency_s,
            trials.c.noise,
            trials.c.verdict,
            trial_payloads.c.stores,
            trial_payloads.c.features,
            trial_payloads.c.trace,
            record_sets.c.workload,
            record_sets.c.target,
            record_sets.c.fingerprint,
            device_profiles.c.profile,
        )
        .join_from(trials, trial_payloads)
        .join(record_sets, record_sets.c.record_set_id == trials.c.record_set_id)
        .outerjoin(device_profiles, profile)
        .where(trials.c.seq > bindparam("after"), trial_payloads.c.features.is_not(None))
        .order_by(trials.c.seq)
        .limit(_PAGE_ROWS)
    )


_TRAINING_PAGE = _training_page()


def _hardware(profile: str | None, target: str) -> tuple[float, ...]:
    if profile is None:
        return (math.nan,) * len(HARDWARE_FEATURES)
    return tuple(hardware_vector(DeviceProfile.from_json(profile), target))


def _training_row(row: Row[Any], hardware: tuple[float, ...]) -> TrainingRow:
    return TrainingRow(
        key=TaskKey(row.workload, row.target, row.fingerprint),
        candidate=row.candidate,
        stores=row.stores,
        features=unpack(row.features),
        latency_s=row.latency_s,
        noise=row.noise,
        verdict=row.verdict,
        hardware=hardware,
        trace=unpack(row.trace).decode(),
    )


def _traces(connection: Connection, seqs: Sequence[int]) -> dict[int, str]:
    if not seqs:
        return {}
    rows = connection.execute(_TRACES, {"seqs": list(seqs)})
    return {row.trial_seq: unpack(row.trace).decode() for row in rows}
