"""Devices in SQL."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, null, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.state.database import Database
from coordinator.state.one_row import in_one_row, texts
from coordinator.state.records import DeviceRecord, Quarantine, TaskKey
from coordinator.state.rows import device_record, device_values
from coordinator.state.store import Store
from coordinator.state.tables import (
    IS_ACTIVE,
    canary_readings,
    device_profiles,
    devices,
    leases,
    trials,
)
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Verdict

_HELD = (
    select(devices.c.device_id, leases.c.lease_id)
    .outerjoin(leases, (leases.c.device_id == devices.c.device_id) & IS_ACTIVE)
    .where(devices.c.device_id.in_(bindparam("names", expanding=True)))
)
_TOUCH = (
    update(devices)
    .where(devices.c.device_id.in_(bindparam("names", expanding=True)))
    .values(last_seen=bindparam("now"))
)
_HEARD_OF = in_one_row(
    select(devices.c.device_id).where(
        devices.c.last_seen.between(bindparam("since"), bindparam("until"))
    )
)
_BY_ID, _BY_NAME = (
    select(devices).where(column == bindparam("reference"))
    for column in (devices.c.device_id, devices.c.name)
)
_WHOSE_LEASE = select(leases.c.device_id, leases.c.fingerprint, leases.c.target).where(
    leases.c.lease_id == bindparam("lease")
)
_CANARY_NOTED = select(canary_readings.c.seq).where(
    canary_readings.c.lease_id == bindparam("lease")
)
_CONDITIONS = select(trials.c.conditions).where(
    trials.c.lease_id == bindparam("lease"),
    trials.c.verdict.in_([Verdict.OK, Verdict.THROTTLED]),
)
_NOTE_CANARY = insert(canary_readings)
_LAST_CANARIES = (
    select(canary_readings.c.canary_s)
    .where(
        canary_readings.c.device_id == bindparam("device"),
        canary_readings.c.fingerprint == bindparam("hardware"),
        canary_readings.c.target == bindparam("target"),
    )
    .order_by(canary_readings.c.seq.desc())
    .limit(bindparam("most"))
)


class SqlDevices(Store):
    """The part of the store that knows devices."""

    _db: Database

    def put_device(self, device: DeviceRecord) -> None:
        values = device_values(device)
        try:
            with self._db.write() as connection:
                if not device.ready:
                    values |= _measured_before(connection, device)
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

    def touch_devices(self, device_ids: Collection[str], now: float) -> dict[str, str]:
        with self._db.write(undoable=False) as connection:
            rows = connection.execute(_HELD, {"names": list(device_ids)})
            held = {row.device_id: row.lease_id or "" for row in rows}
            if held:
                connection.execute(_TOUCH, {"names": list(held), "now": now})
        return held

    def get_device(self, name_or_id: str) -> DeviceRecord:
        with self._db.read() as connection:
            for query in (_BY_ID, _BY_NAME):
                row = connection.execute(query, {"reference": name_or_id}).first()
                if row is not None:
                    return device_record(row._mapping)
        raise TuneFleetError(
            Reason.DEVICE_UNKNOWN, f"no device has the id or the name {name_or_id!r}"
        )

    def list_devices(self, fingerprint: str = "") -> list[DeviceRecord]:
        query = select(devices).order_by(devices.c.name)
        if fingerprint:
            query = query.where(devices.c.fingerprint == fingerprint)
        with self._db.read() as connection:
            return [device_record(row) for row in connection.execute(query).mappings()]

    def heard_of(self, since: float, until: float) -> frozenset[str]:
        with self._db.read() as connection:
            return texts(connection, _HEARD_OF, {"since": since, "until": until})

    def set_quarantine(self, device_id: str, quarantine: Quarantine | None) -> None:
        stored = null() if quarantine is None else asdict(quarantine)
        with self._db.write() as connection:
            changed = connection.execute(
                update(devices).where(devices.c.device_id == device_id).values(quarantine=stored)
            )
        if changed.rowcount == 0:
            raise TuneFleetError(Reason.DEVICE_UNKNOWN, f"no device has the id {device_id!r}")

    def set_draining(self, device_id: str, *, draining: bool) -> None:
        with self._db.write() as connection:
            changed = connection.execute(
                update(devices).where(devices.c.device_id == device_id).values(draining=draining)
            )
        if changed.rowcount == 0:
            raise TuneFleetError(Reason.DEVICE_UNKNOWN, f"no device has the id {device_id!r}")

    def note_canary(self, lease_id: str, now: float) -> bool:
        with self._db.write(undoable=False) as connection:
            named = {"lease": lease_id}
            lease = connection.execute(_WHOSE_LEASE, named).first()
            if lease is None or connection.execute(_CANARY_NOTED, named).first() is not None:
                return False
            conditions = connection.execute(_CONDITIONS, named).scalars()
            found = [c["canary_s"] for c in conditions if c.get("canary_s")]
            if not found:
                return False
            reading = {
                **lease._mapping,
                "lease_id": lease_id,
                "taken_at": now,
                "canary_s": statistics.median(found),
            }
            connection.execute(_NOTE_CANARY, reading)
            return True

    def canary_readings(self, device_id: str, key: TaskKey, limit: int) -> list[float]:
        named = {
            "device": device_id,
            "hardware": key.fingerprint,
            "target": key.target,
            "most": limit,
        }
        with self._db.read() as connection:
            return list(connection.execute(_LAST_CANARIES, named).scalars())[::-1]

    def forget_canary(self, device_id: str) -> None:
        with self._db.write() as connection:
            connection.execute(
                delete(canary_readings).where(canary_readings.c.device_id == device_id)
            )


def _measured_before(connection: Connection, device: DeviceRecord) -> dict[str, Any]:
    """Return the profile and target of a device that was ready, where its hardware is the same."""
    row = connection.execute(
        select(devices.c.profile, devices.c.target).where(
            devices.c.device_id == device.device_id,
            devices.c.fingerprint == device.fingerprint,
        )
    ).first()
    if row is None or DeviceProfile.from_json(row.profile).measured is None:
        return {}
    return dict(row._mapping)


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
