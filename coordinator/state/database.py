"""Connections and transactions; what differs between databases is here and in ``postgresql``."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError

from coordinator.state.postgresql import open_postgresql
from tunefleet.errors import Reason, TuneFleetError

_SQLITE_BUSY_TIMEOUT_MS = 30_000
"""Another process, such as a training job, may hold the file; no transaction takes this long."""

DATABASE_AWAY: tuple[type[Exception], ...] = (OperationalError,)
"""What is raised while the database cannot do its work: its disk is full, somebody holds it, or its
server is gone. The same may work later."""

_WRITES = "tunefleet_writes"

_POSTGRESQL_READER: dict[str, Any] = {
    "isolation_level": "REPEATABLE READ",
    "postgresql_readonly": True,
}
"""One state for the whole transaction, not one for each statement."""


class _Group(threading.local):
    """The transaction that a thread has open for several calls."""

    connection: Connection | None = None
    spoiled: BaseException | None = None


class Database:
    """Transactions on one database. Writers of one process queue here, readers never wait."""

    def __init__(self, url: str) -> None:
        """Prepare to connect.

        Raises:
            TuneFleetError: INVALID_ARGUMENT for what is no URL of a database that is supported,
                NOT_INSTALLED without its driver.
        """
        self._engine = _open_engine(url)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        sqlite = self._engine.dialect.name == "sqlite"
        self._reader = (
            self._engine if sqlite else self._engine.execution_options(**_POSTGRESQL_READER)
        )
        self._writing = threading.Lock()
        self._group = _Group()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run statements that see one state of the database."""
        if self._group.connection is not None:
            yield self._group.connection
            return
        with self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *, undoable: bool = True) -> Iterator[Connection]:
        """Run statements that happen wholly or, after an exception, not at all.

        Args:
            undoable: whether, within a group, these statements can be undone alone. What cannot
                costs half as much: it must raise no TuneFleetError once it has changed something,
                and a constraint that it violates undoes the group.
        """
        if self._group.connection is not None:
            part = self._part if undoable else self._inseparable
            with part(self._group.connection) as connection:
                yield connection
            return
        with self._writing, self._writer.begin() as connection:
            yield connection

    @contextmanager
    def group(self) -> Iterator[None]:
        """Run this thread's reads and writes in one transaction, each write still by itself.

        Raises:
            Exception: what a statement failed with, for another reason than a constraint: a full
                disk may have undone more than that statement, so that all is undone.
        """
        if self._group.connection is not None:
            yield
            return
        with self._writing, self._writer.begin() as connection:
            self._group.connection, self._group.spoiled = connection, None
            try:
                yield
                if self._group.spoiled is not None:
                    raise self._group.spoiled
            finally:
                self._group.connection = self._group.spoiled = None

    @contextmanager
    def _part(self, connection: Connection) -> Iterator[Connection]:
        try:
            with connection.begin_nested():
                yield connection
        except (IntegrityError, TuneFleetError):
            raise
        except BaseException as e:
            self._group.spoiled = e
            raise

    @contextmanager
    def _inseparable(self, connection: Connection) -> Iterator[Connection]:
        try:
            yield connection
        except TuneFleetError:
            raise
        except BaseException as e:
            self._group.spoiled = e
            raise


def _open_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as e:
        raise _unsupported("what was given is no URL of one") from e
    backend = parsed.get_backend_name()
    if backend == "postgresql":
        return open_postgresql(parsed, writes=_WRITES)
    if backend != "sqlite":
        raise _unsupported(f"{backend} is none of them")
    engine = create_engine(parsed, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _unsupported(why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.INVALID_ARGUMENT,
        f"the state is kept in SQLite or PostgreSQL; {why}",
        "Give a URL such as postgresql://user:password@host/database.",
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, too late and never IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # Acknowledged must mean durable: NORMAL would lose the last commits with the power.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    # A restored database is somebody's file: what its schema calls must not be able to do anything.
    cursor.execute("PRAGMA trusted_schema = OFF")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A reader that turns writer fails at once where another wrote meanwhile, without waiting.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
