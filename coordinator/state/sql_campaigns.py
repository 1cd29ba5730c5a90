"""Campaigns and their tasks in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from coordinator.state.database import Database
from coordinator.state.record_sets import find_record_set, get_record_set
from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    KnownTask,
    LeaseKind,
    LeaseState,
    TaskKey,
    TaskProgress,
    TaskRecord,
    TaskTotals,
)
from coordinator.state.rows import campaign_record, campaign_values
from coordinator.state.store import Store
from coordinator.state.tables import campaigns, leases, record_sets, tasks, trials
from tunefleet.errors import Reason, TuneFleetError

_LONGEST_REFERENCE = 200
"""Characters of a campaign's name; a longer text is none, and no pattern to search with."""

ROUND_PHASES = ("fetch", "search", "measure")
"""Phases of a round that follow one another; what else is reported is a part of one of them."""

_ABANDONED = frozenset({LeaseState.RETURNED, LeaseState.EXPIRED, LeaseState.CANCELLED})

ABANDONED_A_ROUND = 10
"""Rounds that were lost or given back without a trial and count as one. As a rule that is trouble
of an agent, such as a full disk, and says nothing of the task; but a task that is at the bottom of
it must be let go some time."""


class SqlCampaigns(Store):
    """The part of the store that knows campaigns and tasks."""

    _db: Database

    def create_campaign(self, campaign: CampaignRecord, idempotency_key: str) -> CampaignRecord:
        fields = {name: getattr(campaign, name) for name in CampaignRecord.__dataclass_fields__}
        del fields["campaign_id"]
        with self._db.write() as connection:
            if idempotency_key:
                made = select(campaigns).where(campaigns.c.idempotency_key == idempotency_key)
                row = connection.execute(made).first()
                if row is not None:
                    return campaign_record(row._mapping)
            connection.execute(
                insert(campaigns).values(
                    campaign_id=campaign.campaign_id,
                    idempotency_key=idempotency_key or None,
                    **campaign_values(fields),
                )
            )
        return campaign

    def get_campaign(self, reference: str) -> CampaignRecord:
        with self._db.read() as connection:
            row = _find_campaign(connection, reference)
        return campaign_record(row)

    def list_campaigns(self, states: Sequence[CampaignState] = ()) -> list[CampaignRecord]:
        query = select(campaigns).order_by(campaigns.c.created_at.desc(), campaigns.c.seq.desc())
        if states:
            query = query.where(campaigns.c.state.in_(states))
        with self._db.read() as connection:
            return [campaign_record(row) for row in connection.execute(query).mappings()]

    def update_campaign(
        self, campaign_id: str, expected: Sequence[CampaignState], **changes: Any
    ) -> CampaignRecord:
        this = campaigns.c.campaign_id == campaign_id
        allowed = this & campaigns.c.state.in_(expected) if expected else this
        # With nothing to change, it still says whether the campaign is in an expected state.
        values = campaign_values(changes) or {"campaign_id": campaign_id}
        with self._db.write() as connection:
            changed = connection.execute(update(campaigns).where(allowed).values(values))
            row = connection.execute(select(campaigns).where(this)).first()
        if row is None:
            raise _unknown(campaign_id)
        record = campaign_record(row._mapping)
        if changed.rowcount == 0:
            raise TuneFleetError(
                Reason.CAMPAIGN_STATE,
                f"campaign {campaign_id} is {record.state}, not {' or '.join(expected)}",
            )
        return record

    def add_tasks(
        self, campaign_id: str, tasks: Sequence[TaskRecord], *, count_stored: bool = False
    ) -> None:
        with self._db.write() as connection:
            _check_campaign(connection, campaign_id)
            for task in tasks:
                _add_task(connection, campaign_id, task, count_stored=count_stored)

    def mark_exhausted(self, campaign_id: str, key: TaskKey) -> None:
        with self._db.write() as connection:
            _check_campaign(connection, campaign_id)
            connection.execute(
                update(tasks)
                .where(
                    tasks.c.campaign_id == campaign_id,
                    tasks.c.record_set_id == find_record_set(connection, key),
                )
                .values(exhausted=True)
            )

    def task_progress(self, campaign_id: str) -> list[TaskProgress]:
        with self._db.read() as connection:
            _check_campaign(connection, campaign_id)
            rows = connection.execute(
                select(tasks, record_sets)
                .join_from(tasks, record_sets)
                .where(tasks.c.campaign_id == campaign_id)
                .order_by(tasks.c.seq)
            ).mappings()
            rounds = _ended_rounds(connection, campaign_id)
            return [_task_progress(row, rounds) for row in rows]

    def known_tasks(self) -> list[KnownTask]:
        query = (
            select(
                record_sets,
                func.min(tasks.c.name).label("name"),
                func.max(tasks.c.flops).label("flops"),
            )
            .join_from(tasks, record_sets)
            .where(record_sets.c.best_s.is_not(None))
            .group_by(record_sets.c.record_set_id)
        )
        with self._db.read() as connection:
            return [
                KnownTask(TaskKey(row.workload, row.target, row.fingerprint), row.name, row.flops)
                for row in connection.execute(query)
            ]

    def task_totals(self) -> dict[str, TaskTotals]:
        query = select(
            tasks.c.campaign_id,
            func.count().label("tasks"),
            func.sum(tasks.c.trials).label("trials"),
        ).group_by(tasks.c.campaign_id)
        with self._db.read() as connection:
            return {
                row.campaign_id: TaskTotals(int(row.tasks), int(row.trials))
                for row in connection.execute(query)
            }


def _find_campaign(connection: Connection, reference: str) -> RowMapping:
    exact = connection.execute(
        select(campaigns).where(campaigns.c.campaign_id == reference)
    ).first()
    if exact is not None:
        return exact._mapping
    if not 0 < len(reference) <= _LONGEST_REFERENCE:
        raise _unknown(reference[:_LONGEST_REFERENCE])
    beginning = campaigns.c.campaign_id.startswith(reference, autoescape=True)
    matches: list[RowMapping] = []
    for condition in (beginning, campaigns.c.name == reference):
        # Three are enough for a message about two.
        query = select(campaigns).where(condition).order_by(campaigns.c.seq.desc()).limit(3)
        found = list(connection.execute(query).mappings())
        if len(found) == 1:
            return found[0]
        matches += found
    if not matches:
        raise _unknown(reference)
    names = ", ".join(str(row["campaign_id"]) for row in matches)
    raise TuneFleetError(
        Reason.CAMPAIGN_UNKNOWN, f"{reference!r} means more than one campaign: {names}, ..."
    )


def _check_campaign(connection: Connection, campaign_id: str) -> None:
    query = select(campaigns.c.seq).where(campaigns.c.campaign_id == campaign_id)
    if connection.execute(query).first() is None:
        raise _unknown(campaign_id)


def _unknown(reference: str) -> TuneFleetError:
    return TuneFleetError(Reason.CAMPAIGN_UNKNOWN, f"there is no campaign {reference!r}")


def _add_task(
    connection: Connection, campaign_id: str, task: TaskRecord, *, count_stored: bool
) -> None:
    record_set = get_record_set(connection, task.key)
    known = connection.execute(
        select(tasks.c.seq).where(
            tasks.c.campaign_id == campaign_id, tasks.c.record_set_id == record_set
        )
    ).first()
    if known is not None:
        return
    stored, measured = _count_trials(connection, record_set) if count_stored else (0, 0)
    connection.execute(
        insert(tasks).values(
            campaign_id=campaign_id,
            record_set_id=record_set,
            name=task.name,
            weight=task.weight,
            flops=task.flops,
            workload_digest=task.workload_digest,
            exhausted=task.exhausted,
            sources=dict(task.sources),
            trials=stored,
            measured=measured,
        )
    )


def _count_trials(connection: Connection, record_set: int) -> tuple[int, int]:
    """Count a record set's trials, and those of them that have a latency."""
    query = select(func.count(), func.count(trials.c.latency_s)).where(
        trials.c.record_set_id == record_set
    )
    stored, measured = connection.execute(query).one()
    return int(stored), int(measured)


@dataclass
class _Rounds:
    """What a task's ended rounds left, one after the other."""

    ended: int = 0
    abandoned: int = 0
    trials: int = 0
    best_s: list[float] = field(default_factory=list)
    trials_then: list[int] = field(default_factory=list)
    trial_s: list[float] = field(default_factory=list)
    final_s: float | None = None

    @property
    def counted(self) -> int:
        return self.ended + self.abandoned // ABANDONED_A_ROUND

    def add(
        self,
        state: LeaseState,
        best_s: float | None,
        trials: int,
        phase_seconds: Mapping[str, float],
    ) -> None:
        if state in _ABANDONED and not trials:
            self.abandoned += 1
            return
        self.ended += 1
        self.trials += trials
        if best_s is not None:
            self.best_s.append(best_s)
            self.trials_then.append(self.trials)
        seconds = sum(phase_seconds.get(phase, 0.0) for phase in ROUND_PHASES)
        if trials and seconds > 0:
            self.trial_s.append(seconds / trials)


def _ended_rounds(connection: Connection, campaign_id: str) -> dict[TaskKey, _Rounds]:
    rows = connection.execute(
        select(
            leases.c.workload,
            leases.c.target,
            leases.c.fingerprint,
            leases.c.kind,
            leases.c.state,
            leases.c.best_s,
            leases.c.trials,
            leases.c.phase_seconds,
        )
        .where(
            leases.c.campaign_id == campaign_id,
            leases.c.kind.in_([kind for kind in LeaseKind if kind.measures]),
            leases.c.state != LeaseState.ACTIVE,
        )
        .order_by(leases.c.fencing_token)
    )
    rounds: dict[TaskKey, _Rounds] = {}
    for row in rows:
        key = TaskKey(row.workload, row.target, row.fingerprint)
        made = rounds.setdefault(key, _Rounds())
        made.final_s = row.best_s
        if row.kind == LeaseKind.ROUND:
            made.add(row.state, row.best_s, row.trials, row.phase_seconds)
    return rounds


def _task_progress(row: RowMapping, rounds: Mapping[TaskKey, _Rounds]) -> TaskProgress:
    key = TaskKey(row["workload"], row["target"], row["fingerprint"])
    made = rounds.get(key, _Rounds())
    return TaskProgress(
        task=TaskRecord(
            key=key,
            name=row["name"],
            weight=row["weight"],
            flops=row["flops"],
            workload_digest=row["workload_digest"],
            exhausted=row["exhausted"],
            sources=row["sources"],
        ),
        trials=row["trials"],
        measured=row["measured"],
        baseline_s=row["baseline_s"],
        best_s=row["best_s"],
        best_candidate=row["best_candidate"],
        rounds=made.counted,
        best_by_round_s=tuple(made.best_s),
        trials_by_round=tuple(made.trials_then),
        final_s=made.final_s,
        trial_s=min(made.trial_s, default=None),
    )
