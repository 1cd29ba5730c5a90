"""Temperature, throttling and power."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from doctor_machines import CPU, board, desktop, lay_out, virtual

from agent.doctor.finding import Finding, Status
from agent.doctor.heat import check_power, check_temperature, check_throttling
from agent.doctor.machine import Machine
from agent.doctor.sampling import Interval, read_counters

PI_STATE = "sys/devices/platform/soc/soc:firmware/get_throttled"
BATTERY = "sys/class/power_supply/BAT0"


def coretemp(degrees: int) -> dict[str, str]:
    sensor = "sys/class/hwmon/hwmon3"
    return {
        f"{sensor}/name": "coretemp",
        f"{sensor}/temp1_input": f"{degrees}000",
        f"{sensor}/temp1_max": "80000",
        f"{sensor}/temp1_crit": "100000",
    }


def zone(degrees: int, kind: str = "cpu-thermal") -> dict[str, str]:
    folder = "sys/class/thermal/thermal_zone0"
    return {
        f"{folder}/type": kind,
        f"{folder}/temp": f"{degrees}000",
        f"{folder}/trip_point_0_type": "active",
        f"{folder}/trip_point_0_temp": "50000",
        f"{folder}/trip_point_1_type": "passive",
        f"{folder}/trip_point_1_temp": "85000",
        f"{folder}/trip_point_2_type": "critical",
        f"{folder}/trip_point_2_temp": "110000",
    }


@pytest.mark.parametrize(
    ("files", "status"),
    [
        (coretemp(45), Status.OK),
        (coretemp(88), Status.WARN),
        (coretemp(97), Status.BAD),
        (zone(55), Status.OK),
        (zone(72), Status.WARN),
        (zone(86), Status.BAD),
    ],
)
def test_how_near_the_limit_is_decides(
    files: Mapping[str, str], status: Status, tmp_path: Path
) -> None:
    assert check_temperature(lay_out(tmp_path, files)).status is status


def test_the_place_nearest_to_its_limit_is_named(tmp_path: Path) -> None:
    finding = check_temperature(lay_out(tmp_path, coretemp(60), zone(84)))
    assert finding.seen == "84 °C, slows down at 85 °C"


def test_a_limit_that_is_not_told_is_not_guessed(tmp_path: Path) -> None:
    files = {name: text for name, text in zone(84).items() if "trip_point_1" not in name}
    finding = check_temperature(lay_out(tmp_path, files))
    assert finding.status is Status.UNKNOWN
    assert "84 °C" in finding.seen


def test_the_heat_of_a_disk_is_not_the_cpus(tmp_path: Path) -> None:
    files = {**zone(99, kind="nvme"), "sys/class/hwmon/hwmon0/name": "nvme"}
    files["sys/class/hwmon/hwmon0/temp1_input"] = "99000"
    assert check_temperature(lay_out(tmp_path, files)).status is Status.UNKNOWN


@pytest.mark.parametrize("check", [check_temperature, check_power])
def test_a_machine_that_does_not_tell_is_unknown(check, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert check(virtual(tmp_path)).status is Status.UNKNOWN


def counts(core: int, package: int = 0) -> dict[str, str]:
    folder = f"{CPU}/cpu1/thermal_throttle"
    return {
        f"{folder}/core_throttle_count": str(core),
        f"{folder}/package_throttle_count": str(package),
    }


def throttling(
    tmp_path: Path, before: Mapping[str, str], after: Mapping[str, str] | None = None
) -> Finding:
    machines: list[Machine] = [
        desktop(tmp_path / "before", before),
        desktop(tmp_path / "after", before if after is None else after),
    ]
    interval = Interval(*map(read_counters, machines))
    return check_throttling(machines[1], interval)


def test_a_cpu_that_never_slowed_down_is_well(tmp_path: Path) -> None:
    assert throttling(tmp_path, counts(0)).status is Status.OK


def test_a_cpu_that_once_slowed_down_is_a_warning(tmp_path: Path) -> None:
    assert throttling(tmp_path, counts(17)).status is Status.WARN


@pytest.mark.parametrize("after", [counts(18), counts(17, package=1)])
def test_a_cpu_that_slows_down_now_is_bad(after: Mapping[str, str], tmp_path: Path) -> None:
    assert throttling(tmp_path, counts(17), after).status is Status.BAD


def test_throttling_that_is_not_told_is_unknown(tmp_path: Path) -> None:
    assert throttling(tmp_path, {}).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("state", "heat", "power"),
    [
        ("0", Status.OK, Status.OK),
        ("4", Status.BAD, Status.OK),
        ("1", Status.OK, Status.BAD),
        ("50000", Status.WARN, Status.WARN),
        ("80008", Status.BAD, Status.OK),
    ],
)
def test_a_raspberry_pis_firmware_is_asked(
    state: str, heat: Status, power: Status, tmp_path: Path
) -> None:
    machine = board(tmp_path, {PI_STATE: state})
    now = read_counters(machine)
    found = check_throttling(machine, Interval(now, now)), check_power(machine)
    assert [finding.status for finding in found] == [heat, power]


def test_low_voltage_is_noticed_by_its_sensor(tmp_path: Path) -> None:
    sensor = "sys/class/hwmon/hwmon1"
    files = {f"{sensor}/name": "rpi_volt", f"{sensor}/in0_lcrit_alarm": "1"}
    assert check_power(lay_out(tmp_path, files)).status is Status.BAD


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"type": "Battery", "status": "Discharging"}, Status.BAD),
        ({"type": "Battery", "status": "Charging"}, Status.OK),
        ({"type": "Battery", "status": "Discharging", "scope": "Device"}, Status.OK),
        ({"type": "Mains", "online": "1"}, Status.OK),
    ],
)
def test_a_battery_that_is_emptied_is_noticed(
    files: Mapping[str, str], status: Status, tmp_path: Path
) -> None:
    machine = lay_out(tmp_path, {f"{BATTERY}/{name}": text for name, text in files.items()})
    assert check_power(machine).status is status
