"""PostgreSQL: how it is opened, and what it does otherwise than SQLite."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event

from tunefleet.errors import Reason, TuneFleetError

_DRIVER = "postgresql+psycopg"
_WRITING = 0x74756E65
"""Advisory lock of whoever writes: ``tune`` in ASCII. Such locks are a database's own."""
_CONNECTIONS = 8
"""Kept open. Writers queue, and as many readers at a time are rare."""
_NUL = "\0"
_INSTEAD_OF_NUL = "\N{REPLACEMENT CHARACTER}"


def open_postgresql(url: URL, *, writes: str) -> Engine:
    """Make an engine. Nothing is connected yet.

    Writers of all processes take turns, as with SQLite's one file: whoever decides on what it has
    read in its transaction need not fear that it has changed.

    Args:
        url: of the database; the driver may be left out.
        writes: the execution option that tells transactions that write.

    Raises:
        TuneFleetError: NOT_INSTALLED without the driver.
    """
    if url.drivername == "postgresql":
        url = url.set(drivername=_DRIVER)
    try:
        engine = create_engine(url, pool_pre_ping=True, pool_size=_CONNECTIONS)
    except ModuleNotFoundError as e:
        raise TuneFleetError(
            Reason.NOT_INSTALLED,
            f"PostgreSQL needs the Python package {e.name}",
            "Install it with `pip install 'tunefleet[coordinator,postgresql]'`.",
        ) from e

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get(writes, False):
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITING})")

    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    from psycopg.types.string import StrDumperUnknown  # noqa: PLC0415 (optional)

    class Dumper(StrDumperUnknown):
        """Texts from agents, such as a compiler's last words, may hold what its texts cannot."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace(_NUL, _INSTEAD_OF_NUL) if _NUL in obj else obj)

    connection.adapters.register_dumper(str, Dumper)
