"""Brings a database to this release's tables."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from tunefleet.errors import Reason, TuneFleetError


def outdated(connection: Connection) -> str | None:
    """Return the revision of a database that an older release wrote; ``None`` for any other."""
    scripts = _scripts()
    here = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    return here if here in known and here != scripts.get_current_head() else None


def migrate(connection: Connection, revision: str = "head") -> None:
    """Apply the migrations that are missing, within the connection's transaction.

    Args:
        connection: in a transaction.
        revision: the last to apply; all by default.

    Raises:
        TuneFleetError: INCOMPATIBLE if a newer release has changed the tables.
    """
    config = _config()
    scripts = _scripts()
    here = MigrationContext.configure(connection).get_current_revision()
    if here == scripts.get_current_head():
        return
    if here is not None and here not in {script.revision for script in scripts.walk_revisions()}:
        raise TuneFleetError(
            Reason.INCOMPATIBLE,
            f"the database was written by a newer TuneFleet (its tables are at {here!r}); "
            "install that release, or choose another home",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _config() -> Config:
    config = Config()
    # Alembic takes % for the beginning of an interpolation.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
