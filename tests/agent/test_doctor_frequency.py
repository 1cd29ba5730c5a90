"""Governor, turbo, clock and time source, over trees of files as the kernel has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_machines import CPU, board, desktop, lay_out, policy, virtual

from agent.doctor.finding import Change, Status
from agent.doctor.frequency import (
    check_clock,
    check_clocksource,
    check_governor,
    check_turbo,
)

POLICY = f"/{CPU}/cpufreq/policy"
CLOCKSOURCE = "sys/devices/system/clocksource/clocksource0"


def test_a_governor_performance_is_well(tmp_path: Path) -> None:
    finding = check_governor(desktop(tmp_path, scaling_governor="performance"))
    assert (finding.status, finding.seen, finding.changes) == (Status.OK, "performance", ())


def test_each_policy_of_our_cores_is_to_be_changed_once(tmp_path: Path) -> None:
    finding = check_governor(board(tmp_path, scaling_governor="ondemand"))
    assert finding.status is Status.BAD
    assert finding.changes == (Change(f"{POLICY}0/scaling_governor", "performance"),)
    assert finding.command == f"echo performance | sudo tee {POLICY}0/scaling_governor"
    assert finding.why
    assert finding.advice


def test_only_the_cores_that_differ_are_to_be_changed(tmp_path: Path) -> None:
    machine = desktop(
        tmp_path, policy(2, scaling_governor="schedutil"), scaling_governor="performance"
    )
    finding = check_governor(machine)
    assert finding.changes == (Change(f"{POLICY}2/scaling_governor", "performance"),)
    assert finding.seen == "schedutil on 1 of 4"


def test_cores_outside_the_affinity_mask_may_have_any_governor(tmp_path: Path) -> None:
    ours = {"proc/self/status": "Cpus_allowed_list:\t0-1"}
    others = policy(3, scaling_governor="ondemand")
    machine = desktop(tmp_path, ours, others, scaling_governor="performance")
    assert check_governor(machine).status is Status.OK


def test_many_policies_are_given_as_a_pattern(tmp_path: Path) -> None:
    cpus = range(8)
    machine = lay_out(
        tmp_path,
        {f"{CPU}/online": "0-7"},
        *(policy(n) for n in cpus),
        policies={n: [n] for n in cpus},
    )
    assert check_governor(machine).command == (
        "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
    )


@pytest.mark.parametrize(
    ("driver", "status"), [("intel_pstate", Status.WARN), ("acpi-cpufreq", Status.BAD)]
)
def test_powersave_is_less_bad_where_the_hardware_governs(
    driver: str, status: Status, tmp_path: Path
) -> None:
    assert check_governor(desktop(tmp_path, scaling_driver=driver)).status is status


def test_a_clock_that_is_fixed_needs_no_governor(tmp_path: Path) -> None:
    machine = desktop(tmp_path, scaling_governor="userspace", scaling_min_freq="3000000")
    assert check_governor(machine).status is Status.OK


def test_a_governor_that_is_not_offered_is_not_written(tmp_path: Path) -> None:
    machine = desktop(tmp_path, scaling_available_governors="ondemand powersave")
    finding = check_governor(machine)
    assert finding.status is Status.BAD
    assert not finding.fixable
    assert finding.command == ""


@pytest.mark.parametrize("check", [check_governor, check_turbo, check_clock])
def test_a_virtual_machine_does_not_tell(check, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    finding = check(virtual(tmp_path))
    assert finding.status is Status.UNKNOWN
    assert "virtual machine" in finding.seen


@pytest.mark.parametrize(
    ("path", "on", "off"),
    [
        (f"{CPU}/intel_pstate/no_turbo", "0", "1"),
        (f"{CPU}/cpufreq/boost", "1", "0"),
        (f"{CPU}/cpufreq/policy0/boost", "1", "0"),
    ],
)
def test_turbo_is_found_on_and_off(path: str, on: str, off: str, tmp_path: Path) -> None:
    hot = check_turbo(board(tmp_path / "on", {path: on}))
    assert (hot.status, hot.changes) == (Status.WARN, (Change(f"/{path}", off),))
    assert hot.command == f"echo {off} | sudo tee /{path}"
    steady = check_turbo(board(tmp_path / "off", {path: off}))
    assert (steady.status, steady.fixable) == (Status.OK, False)


@pytest.mark.parametrize(
    ("khz", "status"),
    [("2950000", Status.OK), ("2400000", Status.WARN), ("1200000", Status.BAD)],
)
def test_a_clock_far_below_the_highest_is_noticed(khz: str, status: Status, tmp_path: Path) -> None:
    assert check_clock(board(tmp_path, scaling_cur_freq=khz)).status is status


def test_idle_cores_may_rest_at_a_low_clock(tmp_path: Path) -> None:
    machine = desktop(tmp_path, policy(1), scaling_cur_freq="800000")
    assert check_clock(machine).status is Status.OK


def test_a_limit_of_the_clock_is_named(tmp_path: Path) -> None:
    machine = board(tmp_path, scaling_cur_freq="1500000", scaling_max_freq="1500000")
    finding = check_clock(machine)
    assert finding.status is Status.BAD
    assert "limited to 1,500 MHz by scaling_max_freq" in finding.seen


def test_without_turbo_the_nominal_clock_is_all_there_is(tmp_path: Path) -> None:
    clock = {"base_frequency": "2000000", "scaling_cur_freq": "2000000"}
    off = {f"{CPU}/intel_pstate/no_turbo": "1"}
    assert check_clock(desktop(tmp_path, off, **clock)).status is Status.OK


@pytest.mark.parametrize(
    ("current", "status", "command"),
    [
        ("tsc", Status.OK, ""),
        ("arch_sys_counter", Status.OK, ""),
        ("hpet", Status.WARN, f"echo tsc | sudo tee /{CLOCKSOURCE}/current_clocksource"),
    ],
)
def test_slow_time_sources_are_noticed(
    current: str, status: Status, command: str, tmp_path: Path
) -> None:
    files = {
        f"{CLOCKSOURCE}/current_clocksource": current,
        f"{CLOCKSOURCE}/available_clocksource": "tsc hpet acpi_pm",
    }
    finding = check_clocksource(lay_out(tmp_path, files))
    assert (finding.status, finding.command) == (status, command)


def test_a_time_source_that_is_not_told_is_unknown(tmp_path: Path) -> None:
    assert check_clocksource(lay_out(tmp_path)).status is Status.UNKNOWN
