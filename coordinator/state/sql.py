"""The store on an SQL database."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import structlog
from sqlalchemy import URL, make_url
from sqlalchemy.exc import OperationalError

from coordinator.state.database import Database
from coordinator.state.migrate import migrate, outdated
from coordinator.state.snapshot import snapshot
from coordinator.state.sql_campaigns import SqlCampaigns
from coordinator.state.sql_datasets import SqlDatasets
from coordinator.state.sql_devices import SqlDevices
from coordinator.state.sql_features import SqlFeatures
from coordinator.state.sql_identities import SqlIdentities
from coordinator.state.sql_imports import SqlImports
from coordinator.state.sql_ingest import SqlIngest
from coordinator.state.sql_leases import SqlLeases
from coordinator.state.sql_models import SqlModels
from coordinator.state.sql_references import SqlReferences
from coordinator.state.sql_replays import SqlReplays
from coordinator.state.sql_switches import SqlSwitches
from coordinator.state.sql_trials import SqlTrials
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

_NO_ROOM_BYTES = 2**20
"""With less than this free, an SQLite file that cannot be opened is so for want of room."""

log = structlog.get_logger()


class SqlStore(
    SqlDevices,
    SqlCampaigns,
    SqlLeases,
    SqlIngest,
    SqlTrials,
    SqlDatasets,
    SqlImports,
    SqlFeatures,
    SqlReplays,
    SqlModels,
    SqlSwitches,
    SqlIdentities,
    SqlReferences,
):
    """The whole store, each part of which is a class of its own."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def group(self) -> AbstractContextManager[None]:
        return self._db.group()

    def close(self) -> None:
        self._db.close()


def open_store(url: str) -> Store:
    """Open a database and bring it up to date.

    An SQLite file that an older release wrote is copied first, to ``FILE.at-REVISION``.

    Args:
        url: as SQLAlchemy takes it, such as ``sqlite:////home/me/.tunefleet/tunefleet.db`` or
            ``postgresql://me:secret@host/tunefleet``.

    Raises:
        TuneFleetError: INCOMPATIBLE if a newer release wrote it, DATABASE_UNREACHABLE if it cannot
            be connected to, DISK_FULL if there is no room to, INVALID_ARGUMENT and NOT_INSTALLED as
            :class:`Database`.
    """
    database = Database(url)
    try:
        with database.read() as connection:
            before = outdated(connection)
        if before is not None:
            _keep(url, before)
        with database.write() as connection:
            migrate(connection)
    except OperationalError as e:
        database.close()
        raise _unopened(make_url(url), str(e.orig).strip()) from e
    except BaseException:
        database.close()
        raise
    return SqlStore(database)


def _unopened(url: URL, why: str) -> TuneFleetError:
    message = f"the database {url.render_as_string()} cannot be opened: {why}"
    if url.get_backend_name() == "sqlite" and url.database:
        folder = Path(url.database).parent
        if folder.is_dir() and shutil.disk_usage(folder).free < _NO_ROOM_BYTES:
            return TuneFleetError(Reason.DISK_FULL, message, "Make room, then start it again.")
    return TuneFleetError(Reason.DATABASE_UNREACHABLE, message)


def _keep(url: str, revision: str) -> None:
    """Copy an SQLite file as it is; those who run PostgreSQL have backups of their own."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        file = Path(parsed.database)
        copy = file.with_name(f"{file.name}.at-{revision}")
        snapshot(file, copy)
        log.info("database copied before it is brought to this release", copy=str(copy))
