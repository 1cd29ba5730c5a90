"""Is the machine about to slow itself down, or short of power?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.doctor.finding import Finding, Status, ok, unknown
from agent.doctor.machine import Machine, read_number
from agent.doctor.sampling import Interval
from agent.profile.sysfs import read_text

WARN_MARGIN_C = 15.0
"""A machine that is idle, as it should be now, and this near to its limit reaches it under load."""
BAD_MARGIN_C = 5.0
"""Regulation begins a few degrees before the limit."""

# What drivers of CPU sensors are called, and which of their files tells where the CPU slows down:
# Intel's "critical" is that point, others' is where the machine switches off.
_CPU_SENSORS = {"coretemp": "_crit", "k10temp": None, "zenpower": None, "cpu_thermal": None}
_CPU_ZONES = ("cpu", "soc", "x86_pkg_temp", "package", "bigcore", "littlecore")

# Of the Raspberry Pi's firmware: what holds now; the same bits 16 places higher: since it started.
_PI_UNDERVOLTAGE, _PI_SLOWED = 0b0001, 0b1110
_PI_STATE = "soc*/*firmware/get_throttled"

_COOL_IT = "Cool it: clean fan and fins, give it air, and let it rest before measuring."


@dataclass(frozen=True)
class _Reading:
    degrees_c: float
    limit_c: float | None
    """Where the kernel or the CPU begins to slow down."""

    @property
    def margin_c(self) -> float:
        return float("inf") if self.limit_c is None else self.limit_c - self.degrees_c


def check_temperature(machine: Machine) -> Finding:
    """Compare the CPU's temperature with the one at which it slows down."""
    name = "temperature"
    readings = [*_sensor_readings(machine), *_zone_readings(machine)]
    if not readings:
        return unknown(name, machine.untold("its temperature"))
    limited = [reading for reading in readings if reading.limit_c is not None]
    if not limited:
        hottest = max(reading.degrees_c for reading in readings)
        return unknown(name, f"{hottest:.0f} °C; at which temperature it slows down is not told")
    reading = min(limited, key=lambda each: each.margin_c)
    seen = f"{reading.degrees_c:.0f} °C, slows down at {reading.limit_c:.0f} °C"
    if reading.margin_c > WARN_MARGIN_C:
        return ok(name, seen)
    return Finding(
        name,
        Status.BAD if reading.margin_c <= BAD_MARGIN_C else Status.WARN,
        seen,
        "under load it will slow down, and later candidates will seem worse than earlier ones",
        _COOL_IT,
    )


def check_throttling(machine: Machine, interval: Interval) -> Finding:
    """Tell whether the CPU was slowed down, now or since the machine started."""
    name = "throttling"
    pi = _pi_state(machine)
    now, earlier = interval.throttle_events, interval.after.throttle_events
    if earlier is None and pi is None:
        return unknown(name, machine.untold("whether its clock was ever reduced"))
    why = "a clock that is reduced now and then makes equal programs differ in time"
    if now or (pi is not None and pi & _PI_SLOWED):
        seen = "the clock is being reduced right now"
        return Finding(name, Status.BAD, seen, why, _COOL_IT)
    if earlier or (pi is not None and pi >> 16 & _PI_SLOWED):
        seen = "the clock was reduced since the machine started, but not now"
        return Finding(name, Status.WARN, seen, why, _COOL_IT)
    return ok(name, "never since the machine started")


def check_power(machine: Machine) -> Finding:
    """Look for a battery that is being emptied, and for a Raspberry Pi's weak supply."""
    name = "power"
    if _undervoltage(machine):
        return Finding(
            name,
            Status.BAD,
            "the supply voltage is too low",
            "the firmware reduces the clock, and the machine may crash under load",
            "Use the board's own power supply and a short cable.",
        )
    pi = _pi_state(machine)
    supplies = machine.path("/sys/class/power_supply")
    if pi is None and not supplies.is_dir():
        return unknown(name, machine.untold("where its power comes from"))
    states = [
        read_text(supply / "status")
        for supply in (supplies.iterdir() if supplies.is_dir() else ())
        # A mouse's battery says "Device" here.
        if read_text(supply / "type") == "Battery" and read_text(supply / "scope") != "Device"
    ]
    if "Discharging" in states:
        return Finding(
            name,
            Status.BAD,
            "on battery",
            "firmware and system save power, and the clock falls as the battery does",
            "Connect it to the mains.",
        )
    if pi is not None and pi >> 16 & _PI_UNDERVOLTAGE:
        return Finding(
            name,
            Status.WARN,
            "the supply voltage was too low at least once since the machine started",
            "each time the firmware reduced the clock",
            "Use the board's own power supply and a short cable.",
        )
    return ok(name, "on mains" if states else "no battery")


def _sensor_readings(machine: Machine) -> Iterator[_Reading]:
    for sensor in sorted(machine.path("/sys/class/hwmon").glob("hwmon*")):
        driver = read_text(sensor / "name") or ""
        if driver not in _CPU_SENSORS:
            continue
        limit = _CPU_SENSORS[driver]
        for file in sorted(sensor.glob("temp*_input")):
            degrees = _degrees(file)
            if degrees is not None:
                beside = file.with_name(file.name.replace("_input", limit)) if limit else None
                yield _Reading(degrees, _degrees(beside) if beside else None)


def _zone_readings(machine: Machine) -> Iterator[_Reading]:
    for zone in sorted(machine.path("/sys/class/thermal").glob("thermal_zone*")):
        kind, degrees = (read_text(zone / "type") or "").lower(), _degrees(zone / "temp")
        if degrees is None or not kind.startswith(_CPU_ZONES):
            continue
        limits = [
            limit
            for trip in zone.glob("trip_point_*_type")
            # There the kernel slows the CPU down; at others a fan starts, or the machine stops.
            if read_text(trip) == "passive"
            and (limit := _degrees(trip.with_name(trip.name.replace("_type", "_temp"))))
        ]
        yield _Reading(degrees, min(limits, default=None))


def _degrees(path: Path) -> float | None:
    """Read thousandths of a degree; firmware writes nonsense where there is no sensor."""
    number = read_number(path)
    return number / 1000 if number is not None and 0 < number < 200_000 else None


def _pi_state(machine: Machine) -> int | None:
    for file in machine.path("/sys/devices/platform").glob(_PI_STATE):
        try:
            return int(read_text(file) or "", 16)
        except ValueError:
            continue
    return None


def _undervoltage(machine: Machine) -> bool:
    pi = _pi_state(machine)
    if pi is not None and pi & _PI_UNDERVOLTAGE:
        return True
    return any(
        read_text(sensor / "name") == "rpi_volt" and read_text(sensor / "in0_lcrit_alarm") == "1"
        for sensor in machine.path("/sys/class/hwmon").glob("hwmon*")
    )
