"""Versions of the cost model in SQL."""

from __future__ import annotations

from sqlalchemy import insert, select

from coordinator.state.database import Database
from coordinator.state.records import ModelVersionRecord
from coordinator.state.rows import model_record, model_values
from coordinator.state.store import Store
from coordinator.state.tables import model_versions
from tunefleet.errors import Reason, TuneFleetError

_NEWEST_FIRST = select(model_versions).order_by(model_versions.c.seq.desc())


class SqlModels(Store):
    """The part of the store that knows model versions."""

    _db: Database

    def add_model_version(self, model: ModelVersionRecord) -> None:
        with self._db.write() as connection:
            connection.execute(insert(model_versions).values(model_values(model)))

    def current_model(self) -> ModelVersionRecord | None:
        query = _NEWEST_FIRST.where(model_versions.c.promoted).limit(1)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        return None if row is None else model_record(row._mapping)

    def get_model_version(self, version: str) -> ModelVersionRecord:
        query = select(model_versions).where(model_versions.c.version == version)
        with self._db.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise TuneFleetError(
                Reason.MODEL_VERSION_UNKNOWN, f"there is no model version {version!r}"
            )
        return model_record(row._mapping)

    def list_model_versions(self) -> list[ModelVersionRecord]:
        with self._db.read() as connection:
            return [model_record(row) for row in connection.execute(_NEWEST_FIRST).mappings()]
