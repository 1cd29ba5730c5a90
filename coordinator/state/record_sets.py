"""Record sets in SQL: what all campaigns know of one workload, target and hardware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, bindparam, func, insert, select, update

from coordinator.state.ranking import fastest_first, has_repeated
from coordinator.state.records import TaskKey
from coordinator.state.tables import record_sets, trials

_FIND = select(record_sets.c.record_set_id).where(
    record_sets.c.workload == bindparam("workload"),
    record_sets.c.target == bindparam("target"),
    record_sets.c.fingerprint == bindparam("fingerprint"),
)
_BEST = select(record_sets.c.record_set_id, record_sets.c.best_s).where(
    record_sets.c.record_set_id.in_(bindparam("numbers", expanding=True))
)
# That a candidate was measured again may make the best one slower, too. One record set at a time:
# for pairs of both SQLite looks through all trials.
_MEASURED_AGAIN = (
    select(trials.c.candidate)
    .where(
        trials.c.record_set_id == bindparam("number"),
        trials.c.candidate.in_(bindparam("candidates", expanding=True)),
        trials.c.latency_s.is_not(None),
    )
    .group_by(trials.c.candidate)
    .having(func.count() > 1)
    .limit(1)
)
_NOTE_BEST = (
    update(record_sets)
    .where(record_sets.c.record_set_id == bindparam("number"))
    .values(best_s=bindparam("latency_s"), best_candidate=bindparam("candidate"))
)
_NOTE_BASELINE = (
    update(record_sets)
    .where(
        record_sets.c.record_set_id == bindparam("number"),
        record_sets.c.baseline_s.is_(None) | (record_sets.c.baseline_s > bindparam("latency_s")),
    )
    .values(baseline_s=bindparam("latency_s"))
)


def find_record_set(connection: Connection, key: TaskKey) -> int | None:
    """Return the row number of a record set, or ``None`` where there is none."""
    row = connection.execute(
        _FIND, {"workload": key.workload, "target": key.target, "fingerprint": key.fingerprint}
    ).first()
    return None if row is None else int(row.record_set_id)


def get_record_set(connection: Connection, key: TaskKey) -> int:
    """Return the row number of a record set, which is made where there is none."""
    known = find_record_set(connection, key)
    if known is not None:
        return known
    made = connection.execute(
        insert(record_sets)
        .values(
            workload=key.workload, target=key.target, fingerprint=key.fingerprint, best_candidate=""
        )
        .returning(record_sets.c.record_set_id)
    )
    return int(made.scalar_one())


@dataclass
class Measured:
    """What new trials brought to a record set."""

    candidate: str
    """The fastest of them."""
    latency_s: float
    candidates: set[str] = field(default_factory=set)
    """All that they have a latency of."""


def note_best(connection: Connection, found: Mapping[int, Measured]) -> None:
    """Take new trials, which are stored already, into their record sets' summaries.

    Args:
        connection: within a transaction that writes.
        found: by record set's row number.
    """
    if not found:
        return
    best = {
        row.record_set_id: row.best_s for row in connection.execute(_BEST, {"numbers": list(found)})
    }
    for number, new in found.items():
        names = {"number": number, "candidates": list(new.candidates)}
        again = connection.execute(_MEASURED_AGAIN, names).first() is not None
        known_s = best[number]
        if again or known_s is None or new.latency_s < known_s:
            _note_best(connection, number, new, repeated=again)


def _note_best(connection: Connection, record_set: int, new: Measured, *, repeated: bool) -> None:
    candidate, latency_s = new.candidate, new.latency_s
    if repeated or has_repeated(connection, record_set):
        [first] = fastest_first(connection, record_set, 1)
        candidate, latency_s = first.candidate, first.latency_s
    best = {"number": record_set, "latency_s": latency_s, "candidate": candidate}
    connection.execute(_NOTE_BEST, best)


def note_baselines(connection: Connection, found: Iterable[tuple[int, float]]) -> None:
    """Take latencies of untuned programs into record sets' summaries where they are the lowest.

    Args:
        connection: in a transaction.
        found: number of the record set and latency in seconds, of each.
    """
    rows = [{"number": n, "latency_s": s} for n, s in found]
    if rows:
        connection.execute(_NOTE_BASELINE, rows)
