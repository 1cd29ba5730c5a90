"""Switches in SQL."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from coordinator.state.database import Database
from coordinator.state.store import Store
from coordinator.state.tables import switches


class SqlSwitches(Store):
    """The part of the store that knows switches."""

    _db: Database

    def set_switch(self, name: str, *, on: bool) -> None:
        with self._db.write() as connection:
            known = connection.execute(
                update(switches).where(switches.c.name == name).values(is_on=on)
            )
            if known.rowcount == 0:
                connection.execute(insert(switches).values(name=name, is_on=on))

    def is_on(self, name: str) -> bool:
        with self._db.read() as connection:
            query = select(switches.c.is_on).where(switches.c.name == name)
            return bool(connection.execute(query).scalar())
