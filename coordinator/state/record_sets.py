"""Record sets in SQL: what all campaigns know of one workload, target and hardware."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, insert, select, update

from coordinator.state.ranking import fastest_first, repeated_candidates
from coordinator.state.records import TaskKey
from coordinator.state.tables import record_sets


def find_record_set(connection: Connection, key: TaskKey) -> int | None:
    """Return the row number of a record set, or ``None`` where there is none."""
    row = connection.execute(
        select(record_sets.c.record_set_id).where(
            record_sets.c.workload == key.workload,
            record_sets.c.target == key.target,
            record_sets.c.fingerprint == key.fingerprint,
        )
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


def note_best(
    connection: Connection,
    record_set: int,
    candidate: str,
    latency_s: float,
    measured: Collection[str],
) -> None:
    """Take new trials, which are stored already, into a record set's summary.

    Args:
        connection: within a transaction that writes.
        record_set: its row number.
        candidate: the fastest of the new ones.
        latency_s: its latency.
        measured: all candidates that the new trials have a latency of.
    """
    this = record_sets.c.record_set_id == record_set
    best_s = connection.execute(select(record_sets.c.best_s).where(this)).scalar_one()
    improves = best_s is None or latency_s < best_s
    # That a candidate was measured again may make the best one slower, too.
    again = connection.execute(repeated_candidates(record_set, measured).limit(1)).first()
    if again is None and not improves:
        return
    if again or connection.execute(repeated_candidates(record_set).limit(1)).first():
        [first] = fastest_first(connection, record_set, 1)
        candidate, latency_s = first.candidate, first.latency_s
    connection.execute(
        update(record_sets).where(this).values(best_s=latency_s, best_candidate=candidate)
    )


def note_baseline(connection: Connection, record_set: int, latency_s: float) -> None:
    """Take a latency of the untuned program into a record set's summary if it is the lowest."""
    baseline = record_sets.c.baseline_s
    connection.execute(
        update(record_sets)
        .where(
            record_sets.c.record_set_id == record_set, baseline.is_(None) | (baseline > latency_s)
        )
        .values(baseline_s=latency_s)
    )
