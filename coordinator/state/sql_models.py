"""Versions of the cost model in SQL."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, insert, select, update

from coordinator.state.database import Database
from coordinator.state.records import ModelVersionRecord
from coordinator.state.rows import model_record, model_values
from coordinator.state.store import Store
from coordinator.state.tables import model_versions
from tunefleet.errors import Reason, TuneFleetError

_NEWEST_FIRST = select(model_versions).order_by(model_versions.c.seq.desc())
_IN_USE = (
    select(model_versions)
    .where(model_versions.c.promotion.is_not(None))
    .order_by(model_versions.c.promotion.desc())
)
"""Promoted versions, the current one first."""


class SqlModels(Store):
    """The part of the store that knows model versions."""

    _db: Database

    def add_model_version(
        self, model: ModelVersionRecord, *, instead_of: str | None = None
    ) -> None:
        values = model_values(model)
        with self._db.write() as connection:
            if model.promoted:
                _require_current(connection, instead_of, model.version)
                values["promotion"] = _next_promotion(connection)
            connection.execute(insert(model_versions).values(values))

    def promote_model(
        self,
        version: str,
        why: str,
        *,
        instead_of: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ModelVersionRecord:
        with self._db.write() as connection:
            model = _read(connection, version)
            if version == _current_name(connection):
                return model
            _require_current(connection, instead_of, version)
            changes = {
                "promoted": True,
                "rolled_back": False,
                "why": why,
                "metrics": {**model.metrics, **(metrics or {})},
                "promotion": _next_promotion(connection),
            }
            _change(connection, version, changes)
            return _read(connection, version)

    def roll_back_model(self, version: str, why: str) -> ModelVersionRecord:
        with self._db.write() as connection:
            model = _read(connection, version)
            in_use = [model_record(row) for row in connection.execute(_IN_USE.limit(2)).mappings()]
            current = in_use[0] if in_use else None
            if current is not None and model.rolled_back:  # the call was repeated
                return current
            if current is None or current.version != version:
                raise TuneFleetError(
                    Reason.MODEL_VERSION_STATE,
                    f"{version} is not in use; agents rank with "
                    f"{current.version if current else 'no model'}",
                )
            if len(in_use) < 2:
                raise TuneFleetError(
                    Reason.MODEL_VERSION_STATE,
                    f"there is no version to go back to: {version} is the only promoted one",
                    hint="Promote another with `tunefleet model promote`.",
                )
            changes = {"promoted": False, "rolled_back": True, "why": why, "promotion": None}
            _change(connection, version, changes)
            return in_use[1]

    def current_model(self) -> ModelVersionRecord | None:
        with self._db.read() as connection:
            row = connection.execute(_IN_USE.limit(1)).first()
        return None if row is None else model_record(row._mapping)

    def get_model_version(self, version: str) -> ModelVersionRecord:
        with self._db.read() as connection:
            return _read(connection, version)

    def list_model_versions(self) -> list[ModelVersionRecord]:
        with self._db.read() as connection:
            return [model_record(row) for row in connection.execute(_NEWEST_FIRST).mappings()]


def _read(connection: Connection, version: str) -> ModelVersionRecord:
    row = connection.execute(
        select(model_versions).where(model_versions.c.version == version)
    ).first()
    if row is None:
        raise TuneFleetError(Reason.MODEL_VERSION_UNKNOWN, f"there is no model version {version!r}")
    return model_record(row._mapping)


def _change(connection: Connection, version: str, changes: Mapping[str, object]) -> None:
    this = model_versions.c.version == version
    connection.execute(update(model_versions).where(this).values(**changes))


def _current_name(connection: Connection) -> str:
    row = connection.execute(_IN_USE.limit(1)).first()
    return "" if row is None else str(row._mapping["version"])


def _require_current(connection: Connection, expected: str | None, version: str) -> None:
    current = _current_name(connection)
    if expected is not None and current != expected:
        raise TuneFleetError(
            Reason.MODEL_VERSION_STATE,
            f"{version} was judged against {expected or 'no model'}, but {current or 'none'} is "
            "the current version by now",
            hint="Promote it again: it will be judged anew.",
        )


def _next_promotion(connection: Connection) -> int:
    # Two at once collide on the unique column, and one of them fails.
    highest = connection.execute(select(func.max(model_versions.c.promotion))).scalar()
    return int(highest or 0) + 1
