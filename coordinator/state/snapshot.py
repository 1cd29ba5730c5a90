"""Copies of SQLite databases that others write to."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tunefleet.errors import Reason, TuneFleetError


def snapshot(source: Path, target: Path) -> None:
    """Copy an SQLite database that others may be writing to, durably, as it is at one moment.

    Args:
        source: the database's file.
        target: the copy's; what is there is replaced.

    Raises:
        TuneFleetError: INVALID_ARGUMENT if it cannot be copied, or the copy is damaged, as the
            source then is.
    """
    for leftover in (target, *(target.with_name(target.name + end) for end in ("-wal", "-shm"))):
        leftover.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
            # One file, that can be copied as such.
            writing.execute("PRAGMA journal_mode = DELETE")
            [found] = writing.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.OperationalError as e:
        target.unlink(missing_ok=True)
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"the database {source} cannot be copied to {target}: {e}",
            "Make room there, and try again.",
        ) from e
    except sqlite3.DatabaseError as e:
        found = str(e)
    if found != "ok":
        target.unlink(missing_ok=True)
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"the database {source} is damaged: {found}",
            "Restore an earlier backup.",
        )
    sync(target)


def sync(path: Path) -> None:
    """Wait until a file, or what a folder lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
