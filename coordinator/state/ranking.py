"""The candidates of a record set in order, in SQL, by the rule of :mod:`.estimates`."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, func, select

from coordinator.state.estimates import estimate_s, rank
from coordinator.state.tables import trials


@dataclass(frozen=True)
class Ranked:
    """One candidate."""

    candidate: str
    latency_s: float
    """Its estimate."""
    seq: int
    """Row of its fastest trial."""


def fastest_first(connection: Connection, record_set: int | None, limit: int) -> list[Ranked]:
    """Return the fastest candidates of a record set, each once."""
    repeated: dict[str, list[tuple[float, int]]] = {}
    of_set = {"record_set": record_set}
    for row in connection.execute(_REPEATED_TRIALS, of_set):
        repeated.setdefault(row.candidate, []).append((row.latency_s, row.seq))
    order: list[tuple[float, Ranked]] = []
    for candidate, measured in repeated.items():
        latencies_s = [latency_s for latency_s, _ in measured]
        found = Ranked(candidate, estimate_s(latencies_s), measured[0][1])
        order.append((rank(latencies_s, others_repeated=True), found))
    singles = 0
    rows = connection.execute(_MEASURED, of_set)
    for row in rows:
        if singles >= limit:
            break
        if row.candidate not in repeated:
            singles += 1
            found = Ranked(row.candidate, row.latency_s, row.seq)
            order.append((rank([row.latency_s], others_repeated=bool(repeated)), found))
    rows.close()
    order.sort(key=lambda pair: (pair[0], pair[1].candidate))
    return [found for _, found in order[:limit]]


def has_repeated(connection: Connection, record_set: int) -> bool:
    """Return whether a record set has a candidate with several latencies."""
    return connection.execute(_ANY_REPEATED, {"record_set": record_set}).first() is not None


# Made once: whoever is given work asks them, and making a statement takes longer than running it.
_MEASURED = (
    select(trials.c.seq, trials.c.candidate, trials.c.latency_s)
    .where(trials.c.record_set_id == bindparam("record_set"), trials.c.latency_s.is_not(None))
    .order_by(trials.c.latency_s, trials.c.candidate, trials.c.seq)
)
_REPEATED = (
    select(trials.c.candidate)
    .where(trials.c.record_set_id == bindparam("record_set"), trials.c.latency_s.is_not(None))
    .group_by(trials.c.candidate)
    .having(func.count() > 1)
)
_REPEATED_TRIALS = _MEASURED.where(trials.c.candidate.in_(_REPEATED))
_ANY_REPEATED = _REPEATED.limit(1)
