"""Devices in SQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.state.database import Database
from coordinator.state.records import DeviceRecord
from coordinator.state.rows import device_record, device_values
from coordinator.state.store import Store
from coordinator.state.tables import device_profiles, devices
from tunefleet.errors import Reason, TuneFleetError


class SqlDevices(Store):
    """The part of the store that knows devices."""

    _db: Database

    def put_device(self, device: DeviceRecord) -> None:
        values = device_values(device)
        try:
            with self._db.write() as connection:
                known = connection.execute(
                    update(devices).where(devices.c.device_id == device.device_id).values(values)
                )
                if known.rowcount == 0:
                    connection.execute(insert(devices).values(**values, trials=device.trials))
                _put_profile(connection, device, values)
        except IntegrityError as e:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT, f"another device is called {device.name!r} already"
            ) from e

    def touch_device(self, device_id: str, now: float) -> None:
        with self._db.write() as connection:
            touched = connection.execute(
                update(devices).where(devices.c.device_id == device_id).values(last_seen=now)
            )
        if touched.rowcount == 0:
            raise TuneFleetError(
                Reason.AGENT_UNKNOWN, f"no agent is registered with the id {device_id!r}"
            )

    def get_device(self, name_or_id: str) -> DeviceRecord:
        with self._db.read() as connection:
            for column in (devices.c.device_id, devices.c.name):
                row = connection.execute(select(devices).where(column == name_or_id)).first()
                if row is not None:
                    return device_record(row._mapping)
        raise TuneFleetError(
            Reason.DEVICE_UNKNOWN, f"no device has the id or the name {name_or_id!r}"
        )

    def list_devices(self) -> list[DeviceRecord]:
        with self._db.read() as connection:
            rows = connection.execute(select(devices).order_by(devices.c.name)).mappings()
            return [device_record(row) for row in rows]


def _put_profile(connection: Connection, device: DeviceRecord, values: dict[str, Any]) -> None:
    this = (device_profiles.c.device_id == device.device_id) & (
        device_profiles.c.fingerprint == device.fingerprint
    )
    if connection.execute(select(device_profiles.c.device_id).where(this)).first() is None:
        row = {name: values[name] for name in ("device_id", "fingerprint", "profile")}
        connection.execute(insert(device_profiles).values(row))
    elif device.ready:
        # A profile that was not measured yet must not displace one that was.
        connection.execute(update(device_profiles).where(this).values(profile=values["profile"]))
