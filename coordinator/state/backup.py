"""Copies of a coordinator's state, taken while it runs, and brought back.

A backup is a folder: ``tunefleet.db``, a snapshot of the SQLite database; ``blobs``, laid out as in
the home; ``authority``, the keys by which agents and users know the coordinator; ``backup.json``,
what it is. Rows name blobs that were stored before them and never
change, so a snapshot followed by all blobs holds every blob that it names. Doing it again into the
same folder copies only what is new, and until the new snapshot takes the place of the old one the
folder is the backup of before.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.snapshot import snapshot, sync
from coordinator.state.sql import open_store
from tunefleet import __version__
from tunefleet.errors import Reason, TuneFleetError

Progress = Callable[[float, str], None]
"""Told the share done (0 to 1) and what is being done."""

DATABASE_FILE = "tunefleet.db"
ABOUT_FILE = "backup.json"
_BLOBS = "blobs"
_AUTHORITY = "authority"
_FORMAT = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTIAL = ".partial"
_COPY_BYTES = 2**20

FENCING_LEAP = 1_000_000
"""Added to the fencing tokens of what is restored: more than were granted since the backup, so that
no token of then is granted a second time."""


@dataclass(frozen=True)
class Copied:
    """What a backup or its restoration came to."""

    blobs: int
    """There now."""
    copied: int
    """Of these, by this call."""
    bytes_copied: int
    spoiled: tuple[str, ...]
    """Digests of blobs that are not what they were: left out."""


def back_up(home: Home, place: Path, progress: Progress, *, now: float) -> Copied:
    """Copy a coordinator's state; it may run meanwhile.

    Args:
        home: its folder.
        place: the backup's; made if missing, brought up to date if it is a backup.
        progress: told after each blob.
        now: Unix time in seconds.

    Raises:
        TuneFleetError: INVALID_ARGUMENT where there is no state in SQLite, or the place holds
            something else.
    """
    source = home.root / DATABASE_FILE
    if not source.is_file():
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{home.root} holds no {DATABASE_FILE}",
            "Give a coordinator's folder with --home. With PostgreSQL, use pg_dump, then copy "
            f"{home.blobs_dir}.",
        )
    if place.exists() and any(place.iterdir()) and not (place / ABOUT_FILE).is_file():
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{place} is neither empty nor a backup",
            "Name a new folder, or one that `tunefleet backup` wrote.",
        )
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = {"format": _FORMAT, "release": __version__, "home": str(home.root), "unix_s": now}
    if not (place / ABOUT_FILE).exists():
        _write(place / ABOUT_FILE, json.dumps(about | {"complete": False}))
    progress(0.0, "taking a snapshot of the database")
    fresh = place / (DATABASE_FILE + _PARTIAL)
    snapshot(source, fresh)
    copied = _copy_blobs(home.blobs_dir, place / _BLOBS, progress)
    _copy_keys(home.authority_dir, place / _AUTHORITY)
    fresh.replace(place / DATABASE_FILE)
    told = about | {"complete": True, "blobs": copied.blobs, "spoiled": copied.spoiled}
    _write(place / ABOUT_FILE, json.dumps(told, indent=1))
    return copied


def restore(place: Path, home: Home, progress: Progress) -> Copied:
    """Make a coordinator's state from a backup.

    Interrupted, it leaves no database, and the same call goes on.

    Args:
        place: the backup's folder.
        home: where to; it must hold no database, and no coordinator may run there.
        progress: told after each blob.

    Raises:
        TuneFleetError: INVALID_ARGUMENT for what is no complete backup or would be overwritten,
            HOME_IN_USE, INCOMPATIBLE for a backup of a newer release.
    """
    _check_backup(place)
    target = home.root / DATABASE_FILE
    with home.exclusive():
        if target.exists():
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{home.root} has a state of its own",
                "Restore into another folder, or move this one away first.",
            )
        copied = _copy_blobs(place / _BLOBS, home.blobs_dir, progress)
        _copy_keys(place / _AUTHORITY, home.authority_dir)
        progress(1.0, "checking the database")
        fresh = target.with_name(DATABASE_FILE + _PARTIAL)
        snapshot(place / DATABASE_FILE, fresh)
        _adopt(fresh)
        fresh.replace(target)
        sync(home.root)
    return copied


def _check_backup(place: Path) -> None:
    try:
        about = json.loads((place / ABOUT_FILE).read_text())
        complete = about["format"] == _FORMAT and about["complete"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        complete = False
    if not complete or not (place / DATABASE_FILE).is_file():
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{place} is no complete backup",
            "Give a folder that `tunefleet backup` has completed.",
        )


def _adopt(database: Path) -> None:
    """Bring a restored database to this release, and its fencing tokens beyond those of then."""
    open_store(f"sqlite:///{database.absolute()}").close()
    for copy in database.parent.glob(f"{database.name}.at-*"):
        copy.unlink()  # of the backup, which stays as it is
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE counters SET value = value + ?", (FENCING_LEAP,))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    sync(database)


def _copy_blobs(source: Path, target: Path, progress: Progress) -> Copied:
    store = BlobStore(target)
    digests = sorted(_digests(source))
    there = copied = total = 0
    spoiled = []
    for number, digest in enumerate(digests, 1):
        path = source / digest[:2] / digest[2:]
        if store.has(digest) and store.size(digest) == path.stat().st_size:
            there += 1
        elif (size := _copy(path, digest, store)) is None:
            spoiled.append(digest)
        else:
            copied, total = copied + 1, total + size
        progress(number / len(digests), f"copying blobs, {number} of {len(digests)}")
    return Copied(there + copied, copied, total, tuple(spoiled))


def _copy_keys(source: Path, target: Path) -> None:
    """Copy private keys, for their owner alone; a coordinator on plain text has none."""
    for path in sorted(source.glob("*.pem")):
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = target / (path.name + _PARTIAL)
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        partial.write_bytes(path.read_bytes())
        sync(partial)
        partial.replace(target / path.name)


def _copy(path: Path, digest: str, store: BlobStore) -> int | None:
    """Copy a blob; returns its size, or ``None`` where it is not what its name says."""
    with store.writer() as writer, path.open("rb") as file:
        while chunk := file.read(_COPY_BYTES):
            writer.write(chunk)
        with suppress(TuneFleetError):
            writer.commit(digest)
            return writer.size_bytes
    return None


def _digests(folder: Path) -> Iterator[str]:
    for path in folder.glob("??/*"):
        digest = path.parent.name + path.name
        if _DIGEST.fullmatch(digest) and path.is_file():
            yield digest


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + _PARTIAL)
    partial.write_text(text + "\n")
    partial.replace(path)
