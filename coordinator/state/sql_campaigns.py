"""Campaigns and their tasks in SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    RowMapping,
    Select,
    Text,
    bindparam,
    func,
    insert,
    select,
    type_coerce,
    update,
)

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
from coordinator.state.rows import CAMPAIGN_COLUMNS, campaign_record, campaign_values
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


_CAMPAIGNS = select(*CAMPAIGN_COLUMNS).order_by(
    campaigns.c.created_at.desc(), campaigns.c.seq.desc()
)
_IN_STATES = _CAMPAIGNS.where(campaigns.c.state.in_(bindparam("states", expanding=True)))


class SqlCampaigns(Store):
    """The part of the store that knows campaigns and tasks."""

    _db: Database

    def create_campaign(self, campaign: CampaignRecord, idempotency_key: str) -> CampaignRecord:
        fields = {name: getattr(campaign, name) for name in CampaignRecord.__dataclass_fields__}
        del fields["campaign_id"]
        with self._db.write() as connection:
            if idempotency_key:
                made = select(*CAMPAIGN_COLUMNS).where(
                    campaigns.c.idempotency_key == idempotency_key
                )
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
        query, named = (_IN_STATES, {"states": list(states)}) if states else (_CAMPAIGNS, {})
        with self._db.read() as connection:
            return [campaign_record(row) for row in connection.execute(query, named).mappings()]

    def update_campaign(
        self, campaign_id: str, expected: Sequence[CampaignState], **changes: Any
    ) -> CampaignRecord:
        this = campaigns.c.campaign_id == campaign_id
        allowed = this & campaigns.c.state.in_(expected) if expected else this
        # With nothing to change, it still says whether the campaign is in an expected state.
        values = campaign_values(changes) or {"campaign_id": campaign_id}
        with self._db.write() as connection:
            changed = connection.execute(update(campaigns).where(allowed).values(values))
            row = connection.execute(select(*CAMPAIGN_COLUMNS).where(this)).first()
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

    def task_progress(self, campaign_id: str, fingerprint: str = "") -> list[TaskProgress]:
        named = {"campaign": campaign_id, "hardware": fingerprint}
        with self._db.read() as connection:
            rows = connection.execute(_TASKS_OF_ONE if fingerprint else _TASKS, named).all()
            if not rows:
                _check_campaign(connection, campaign_id)
            rounds = _ended_rounds(connection, _ROUNDS_OF_ONE if fingerprint else _ROUNDS, named)
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
        select(*CAMPAIGN_COLUMNS).where(campaigns.c.campaign_id == reference)
    ).first()
    if exact is not None:
        return exact._mapping
    if not 0 < len(reference) <= _LONGEST_REFERENCE:
        raise _unknown(reference[:_LONGEST_REFERENCE])
    beginning = campaigns.c.campaign_id.startswith(reference, autoescape=True)
    matches: list[RowMapping] = []
    for condition in (beginning, campaigns.c.name == reference):
        # Three are enough for a message about two.
        query = select(*CAMPAIGN_COLUMNS).where(condition).order_by(campaigns.c.seq.desc()).limit(3)
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

    def add(self, state: LeaseState, best_s: float | None, trials: int, seconds: float) -> None:
        if state in _ABANDONED and not trials:
            self.abandoned += 1
            return
        self.ended += 1
        self.trials += trials
        if best_s is not None:
            self.best_s.append(best_s)
            self.trials_then.append(self.trials)
        if trials and seconds > 0:
            self.trial_s.append(seconds / trials)


# Made once, and their largest columns read as text that is known already: whoever gives a device of
# a fleet its work looks at all tasks of its hardware.
_TASKS = (
    select(
        record_sets.c.workload,
        record_sets.c.target,
        record_sets.c.fingerprint,
        tasks.c.name,
        tasks.c.weight,
        tasks.c.flops,
        tasks.c.workload_digest,
        tasks.c.exhausted,
        type_coerce(tasks.c.sources, Text),
        tasks.c.trials,
        tasks.c.measured,
        record_sets.c.baseline_s,
        record_sets.c.best_s,
        record_sets.c.best_candidate,
    )
    .join_from(tasks, record_sets)
    .where(tasks.c.campaign_id == bindparam("campaign"))
    .order_by(tasks.c.seq)
)
# Not as a condition on the join, for which SQLite reads all tasks of the campaign.
_TASKS_OF_ONE = _TASKS.where(
    tasks.c.record_set_id.in_(
        select(record_sets.c.record_set_id).where(
            record_sets.c.fingerprint == bindparam("hardware")
        )
    )
)
_ROUNDS = (
    select(
        leases.c.workload,
        leases.c.target,
        leases.c.fingerprint,
        leases.c.kind,
        leases.c.state,
        leases.c.best_s,
        leases.c.trials,
        type_coerce(leases.c.phase_seconds, Text),
    )
    .where(
        leases.c.campaign_id == bindparam("campaign"),
        leases.c.kind.in_([kind for kind in LeaseKind if kind.measures]),
        leases.c.state != LeaseState.ACTIVE,
    )
    .order_by(leases.c.fencing_token)
)
_ROUNDS_OF_ONE = _ROUNDS.where(leases.c.fingerprint == bindparam("hardware"))


def _ended_rounds(
    connection: Connection, query: Select[Any], named: Mapping[str, str]
) -> dict[tuple[str, str, str], _Rounds]:
    """Return what ended rounds left, by workload, target and hardware."""
    rounds: dict[tuple[str, str, str], _Rounds] = {}
    for row in connection.execute(query, named):
        workload, target, fingerprint, kind, state, best_s, trials_made, phases = row
        made = rounds.setdefault((workload, target, fingerprint), _Rounds())
        made.final_s = best_s
        if kind == LeaseKind.ROUND:
            made.add(state, best_s, trials_made, _round_seconds(phases))
    return rounds


@lru_cache(maxsize=4096)
def _round_seconds(phase_seconds: str) -> float:
    known = json.loads(phase_seconds)
    return float(sum(known.get(phase, 0.0) for phase in ROUND_PHASES))


_OF_THE_TASK = 9
"""Columns that come first and hardly ever change."""


@lru_cache(maxsize=8192)
def _task_record(columns: tuple[Any, ...]) -> TaskRecord:
    workload, target, fingerprint, name, weight, flops, digest, exhausted, sources = columns
    return TaskRecord(
        key=TaskKey(workload, target, fingerprint),
        name=name,
        weight=weight,
        flops=flops,
        workload_digest=digest,
        exhausted=exhausted,
        sources=json.loads(sources),
    )


def _task_progress(row: Row[Any], rounds: Mapping[tuple[str, str, str], _Rounds]) -> TaskProgress:
    columns = tuple(row)
    trials_made, measured, baseline_s, best_s, best_candidate = columns[_OF_THE_TASK:]
    made = rounds.get(columns[:3]) or _Rounds()
    return TaskProgress(
        task=_task_record(columns[:_OF_THE_TASK]),
        trials=trials_made,
        measured=measured,
        baseline_s=baseline_s,
        best_s=best_s,
        best_candidate=best_candidate,
        rounds=made.counted,
        best_by_round_s=tuple(made.best_s),
        trials_by_round=tuple(made.trials_then),
        final_s=made.final_s,
        trial_s=min(made.trial_s, default=None),
    )
