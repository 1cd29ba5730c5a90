"""Trials on disk until the coordinator has acknowledged them.

One SQLite file in WAL mode with ``synchronous=FULL``: :meth:`Outbox.put` returns once its commit is
on the disk, so that neither SIGKILL nor a power cut takes a measured trial away. SQLite rather than
a file per trial, because it comes with Python, and cheap boards handle few large files better
than many small ones.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

DEFAULT_LIMIT_BYTES = 512 * 2**20
"""About 10,000 trials of the largest programs: days of measuring without a coordinator."""

LEAST_FREE_BYTES = 32 * 2**20
"""Free space on the disk below which no work is taken: enough for a round under way, its blobs and
the workers' logs."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trial (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    trial_id TEXT NOT NULL UNIQUE,
    lease_id TEXT NOT NULL,
    fencing_token INTEGER NOT NULL,
    payload BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS trial_by_lease ON trial (lease_id, fencing_token, position);
"""
_WAL_LIMIT_BYTES = 4 * 2**20

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoredTrial:
    """One trial waiting to be sent."""

    trial_id: str
    payload: bytes = field(repr=False)
    """A serialised ``tunefleet.v1.Trial``."""


@dataclass(frozen=True)
class Batch:
    """Trials of one lease, oldest first."""

    lease_id: str
    fencing_token: int
    trials: tuple[StoredTrial, ...]


@dataclass(frozen=True)
class Fill:
    """How much waits."""

    trials: int
    size_bytes: int
    limit_bytes: int
    """From which on no more work is taken."""


class Outbox:
    """The trials that are not acknowledged yet. Every method may be called from any thread.

    A file that is damaged is moved aside, with a warning, when it is opened or when the damage
    shows later; what it held is lost to the agent, which goes on with an empty one.
    """

    def __init__(self, path: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self.free_bytes = _free_bytes
        self._path = path
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = self._open()
        except sqlite3.OperationalError:
            raise  # a disk that is full or cannot be read; the file itself may be sound
        except sqlite3.DatabaseError as e:
            self._connection = self._begin_anew(e)

    def put(self, trial_id: str, lease_id: str, fencing_token: int, payload: bytes) -> None:
        """Store a trial durably; one that is there already stays as it is.

        The limit is not enforced here, since the trial has been measured: see :attr:`full`.

        Raises:
            sqlite3.OperationalError: the disk is full or failed.
        """
        row = (trial_id, lease_id, fencing_token, payload)
        self._run(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO trial (trial_id, lease_id, fencing_token, payload) "
                "VALUES (?, ?, ?, ?)",
                row,
            )
        )

    def next_batch(self, max_trials: int, max_bytes: int) -> Batch | None:
        """Return the oldest trial and those of its lease that follow it, within the limits.

        Returns:
            At least one trial, however large; ``None`` if the outbox is empty.
        """
        return self._run(lambda connection: _select_batch(connection, max_trials, max_bytes))

    def discard(self, trial_ids: Iterable[str]) -> None:
        """Delete trials that are acknowledged; unknown ids are ignored."""
        rows = [(trial_id,) for trial_id in trial_ids]
        self._run(
            lambda connection: connection.executemany("DELETE FROM trial WHERE trial_id = ?", rows)
        )

    def pending(self, lease_id: str | None = None) -> int:
        """Count the trials that wait, of one lease or in all."""
        return self._run(
            lambda connection: _scalar(
                connection,
                "SELECT count(*) FROM trial WHERE lease_id = coalesce(?, lease_id)",
                (lease_id,),
            )
        )

    def fill(self) -> Fill:
        """Return how much waits."""
        return Fill(self.pending(), self._run(_used_bytes), self._limit_bytes)

    @property
    def full(self) -> bool:
        """Whether the limit is reached, or the disk short, so that no more should be measured."""
        return self._run(_used_bytes) >= self._limit_bytes or self.disk_is_short

    @property
    def disk_is_short(self) -> bool:
        """Whether there is too little room on the disk for more work."""
        return self.free_bytes(self._path.parent) < LEAST_FREE_BYTES

    def close(self) -> None:
        """Close the file. Nothing may be called afterwards."""
        with self._lock:
            self._connection.close()

    def _run(self, action: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            try:
                with self._connection as connection:
                    return action(connection)
            except (sqlite3.OperationalError, sqlite3.IntegrityError, sqlite3.ProgrammingError):
                raise
            except sqlite3.DatabaseError as e:
                self._connection.close()
                self._connection = self._begin_anew(e)
                with self._connection as connection:
                    return action(connection)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False)
        try:
            # Gives the space of deleted trials back; it must precede the first table.
            connection.execute("PRAGMA auto_vacuum = FULL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
            _check(connection)
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        aside = _unused_name(self._path)
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        _log.warning("outbox is damaged, beginning a new one", error=str(error), aside=str(aside))
        return self._open()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _check(connection: sqlite3.Connection) -> None:
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _select_batch(connection: sqlite3.Connection, max_trials: int, max_bytes: int) -> Batch | None:
    oldest = connection.execute(
        "SELECT lease_id, fencing_token FROM trial ORDER BY position LIMIT 1"
    ).fetchone()
    if oldest is None:
        return None
    rows = connection.execute(
        "SELECT trial_id, payload FROM trial WHERE lease_id = ? AND fencing_token = ? "
        "ORDER BY position LIMIT ?",
        (*oldest, max_trials),
    )
    chosen: list[StoredTrial] = []
    size = 0
    for trial_id, payload in rows:
        size += len(payload)
        if chosen and size > max_bytes:
            break
        chosen.append(StoredTrial(trial_id, payload))
    return Batch(oldest[0], oldest[1], tuple(chosen))


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages = _scalar(connection, "PRAGMA page_count") - _scalar(connection, "PRAGMA freelist_count")
    return pages * _scalar(connection, "PRAGMA page_size")


def _scalar(
    connection: sqlite3.Connection, query: str, arguments: tuple[str | None, ...] = ()
) -> int:
    return int(connection.execute(query, arguments).fetchone()[0])


def _unused_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
