"""The candidates of a record set in order, in SQL, by the rule of :mod:`.estimates`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, select

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
    names = repeated_candidates(record_set)
    for row in connection.execute(_measured(record_set).where(trials.c.candidate.in_(names))):
        repeated.setdefault(row.candidate, []).append((row.latency_s, row.seq))
    order: list[tuple[float, Ranked]] = []
    for candidate, measured in repeated.items():
        latencies_s = [latency_s for latency_s, _ in measured]
        found = Ranked(candidate, estimate_s(latencies_s), measured[0][1])
        order.append((rank(latencies_s, others_repeated=True), found))
    singles = 0
    rows = connection.execute(_measured(record_set))
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


def repeated_candidates(record_set: int | None, among: Collection[str] = ()) -> Select[tuple[str]]:
    """Select the candidates that have several latencies, among those named or, for none, all."""
    query = (
        select(trials.c.candidate)
        .where(trials.c.record_set_id == record_set, trials.c.latency_s.is_not(None))
        .group_by(trials.c.candidate)
        .having(func.count() > 1)
    )
    return query.where(trials.c.candidate.in_(among)) if among else query


def _measured(record_set: int | None) -> Select[tuple[int, str, float]]:
    return (
        select(trials.c.seq, trials.c.candidate, trials.c.latency_s)
        .where(trials.c.record_set_id == record_set, trials.c.latency_s.is_not(None))
        .order_by(trials.c.latency_s, trials.c.candidate, trials.c.seq)
    )
