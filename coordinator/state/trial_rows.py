"""Trials on their way into the tables, as the drivers take them.

A fleet brings thousands a second, and to have SQLAlchemy process every value of a row took a fifth
of what a busy coordinator did. So rows are made ready as tuples, by whoever read the trials, and go
to the driver as they are; SQLAlchemy writes the statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Connection, Integer, Table, bindparam, func, insert, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from coordinator.state.rows import pack
from coordinator.state.tables import encode_json, trial_payloads, trials
from tunefleet.trials import Trial

Values = tuple[Any, ...]


@dataclass(frozen=True)
class ReadyTrial:
    """What is stored of a trial, without where it belongs."""

    trial_id: str
    found: Values
    """Columns from the candidate on."""
    circumstances: Values
    """Columns after the time when it came."""
    payload: Values

    @classmethod
    def of(cls, trial: Trial) -> ReadyTrial:
        """Make a trial ready."""
        features = trial.features
        return cls(
            trial.trial_id,
            (trial.candidate, str(trial.verdict), trial.latency_s, trial.noise),
            (
                trial.predicted,
                trial.model_version,
                trial.explored,
                encode_json(trial.samples_s),
                trial.error,
                trial.build_s,
                trial.run_s,
                trial.started_at_unix_s,
                encode_json(vars(trial.conditions)),
            ),
            (
                None if features is None else features.stores,
                None if features is None else pack(features.data),
                pack(trial.trace.encode()),
            ),
        )


@dataclass(frozen=True)
class Place:
    """Where trials belong."""

    lease_id: str
    device_id: str
    campaign_id: str
    record_set_id: int


def insert_trials(
    connection: Connection, placed: Iterable[tuple[Place, ReadyTrial]], now: float
) -> None:
    """Store trials that are not stored yet.

    Args:
        connection: within a transaction that writes.
        placed: trials with where they belong.
        now: when they came, in seconds since 1970.
    """
    new = list(placed)
    if not new:
        return
    numbers = _numbers(connection, len(new))
    rows = [
        (
            *(number, trial.trial_id),
            *(place.lease_id, place.device_id, place.campaign_id, place.record_set_id),
            *(*trial.found, now, *trial.circumstances),
        )
        for number, (place, trial) in zip(numbers, new, strict=True)
    ]
    payloads = [(number, *trial.payload) for number, (_, trial) in zip(numbers, new, strict=True)]
    for table, values in ((trials, rows), (trial_payloads, payloads)):
        connection.exec_driver_sql(_statement(connection.dialect.name, table), values)


_LAST = select(func.max(trials.c.seq))
_RESERVED = select(func.nextval(func.pg_get_serial_sequence("trials", "seq"))).select_from(
    func.generate_series(1, bindparam("count", type_=Integer))
)


def _numbers(connection: Connection, count: int) -> Sequence[int]:
    """Return numbers for new rows, in rising order."""
    if connection.dialect.name == "sqlite":
        # There is one writer, and this is what SQLite itself would go on with.
        last = connection.execute(_LAST).scalar() or 0
        return range(last + 1, last + 1 + count)
    return sorted(connection.execute(_RESERVED, {"count": count}).scalars())


@cache
def _statement(dialect_name: str, table: Table) -> str:
    """Return an INSERT whose parameters are in the order of the table's columns."""
    dialect = (
        SQLiteDialect_pysqlite()
        if dialect_name == "sqlite"
        else PGDialect_psycopg(paramstyle="format")  # type: ignore[no-untyped-call]
    )
    columns = table.columns.keys()
    compiled = insert(table).compile(dialect=dialect, column_keys=columns)
    if compiled.positiontup != columns:
        raise RuntimeError(f"the parameters are {compiled.positiontup}, not {columns}")
    return str(compiled)
