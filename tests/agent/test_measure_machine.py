"""What the machine tells of throttling and of its own history, and what verdicts make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from profile_machines import write_tree

from agent.measure.history import CanaryHistory
from agent.measure.throttle import ThrottleSensor, ThrottleState, why_throttled
from agent.measure.verdicts import Findings, judge
from tunefleet.trials import Conditions, Verdict

_INTEL = {
    f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/{kind}_throttle_count": "3"
    for cpu in range(2)
    for kind in ("core", "package")
}
_ZONE = "sys/class/thermal/thermal_zone0"
_BOARD = {
    f"{_ZONE}/type": "cpu-thermal",
    f"{_ZONE}/temp": "61000",
    f"{_ZONE}/trip_point_0_type": "active",
    f"{_ZONE}/trip_point_0_temp": "50000",
    f"{_ZONE}/trip_point_1_type": "passive",
    f"{_ZONE}/trip_point_1_temp": "75000",
}
_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"


def test_a_machine_that_tells_nothing_is_not_throttled(tmp_path: Path) -> None:
    assert ThrottleSensor(tmp_path).read() == ThrottleState(None, (), told=False)


def test_throttling_events_are_counted_over_all_cores(tmp_path: Path) -> None:
    sensor = ThrottleSensor(write_tree(tmp_path, _INTEL))
    before = sensor.read()
    assert before.events == 12
    assert why_throttled(before, sensor.read()) == ""
    write_tree(tmp_path, {next(iter(_INTEL)): "5"})
    assert "2 throttling events" in why_throttled(before, sensor.read())


def test_passive_trips_slow_a_board_down_and_fans_do_not(tmp_path: Path) -> None:
    sensor = ThrottleSensor(write_tree(tmp_path, _BOARD))
    cool = sensor.read()
    assert cool.told
    assert cool.reasons == ()
    write_tree(tmp_path, {f"{_ZONE}/temp": "76500"})
    assert "cpu-thermal has 76.5 degrees" in why_throttled(cool, sensor.read())


@pytest.mark.parametrize(
    ("flags", "reason"),
    [("0", ""), ("50000", ""), ("1", "voltage"), ("50005", "throttles the processor")],
)
def test_a_raspberry_pi_says_why_now_and_not_since_boot(
    tmp_path: Path, flags: str, reason: str
) -> None:
    state = ThrottleSensor(write_tree(tmp_path, {_PI: flags})).read()
    assert state.told
    assert (reason in why_throttled(state, state)) if reason else state.reasons == ()


def test_a_clock_limit_that_falls_is_noticed(tmp_path: Path) -> None:
    limit = "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq"
    sensor = ThrottleSensor(write_tree(tmp_path, {limit: "1800000"}))
    before = sensor.read()
    write_tree(tmp_path, {limit: "1500000"})
    assert "policy0 may run at 1500 of 1800 MHz" in why_throttled(before, sensor.read())


def test_history_is_low_and_survives_a_restart(tmp_path: Path) -> None:
    history = CanaryHistory(tmp_path, "t", 2, clock=lambda: 0.0)
    assert history.usual_s() is None
    history.add([2.0] * 3 + [1.0] * 7)
    history.add([])
    history.save()
    assert CanaryHistory(tmp_path, "t", 2, clock=lambda: 0.0).usual_s() == 1.0
    assert CanaryHistory(tmp_path, "t", 1, clock=lambda: 0.0).usual_s() is None


def test_a_neighbour_does_not_become_usual_until_an_hour_has_passed(tmp_path: Path) -> None:
    now = 0.0
    history = CanaryHistory(tmp_path, "t", 2, clock=lambda: now)
    history.add([1.0] * 10)
    for _ in range(11):
        now += 300.0
        history.add([1.5] * 100)
    assert history.usual_s() == 1.0
    now += 300.0
    history.add([1.5] * 100)
    assert history.usual_s() == 1.5


def test_a_broken_history_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "canary.json").write_text("{")
    assert CanaryHistory(tmp_path, "t", 2).usual_s() is None


_GOOD = Findings(
    samples_s=(1.0, 1.01, 1.0),
    conditions=Conditions(canary_s=1.0, foreign_cores=0.0, steal_cores=0.0, waited_share=0.0),
    quiet=True,
    spoilt=False,
    throttling="",
    usual_s=1.0,
)


def _spoilt(throttling: str = "", **conditions: float) -> Findings:
    slow = replace(_GOOD.conditions, canary_s=1.4, attempts=4)
    return replace(
        _GOOD, spoilt=True, throttling=throttling, conditions=replace(slow, **conditions)
    )


@pytest.mark.parametrize(
    ("found", "virtual", "verdict", "says"),
    [
        (_GOOD, True, Verdict.OK, ""),
        # The canary saw no harm done by them.
        (
            replace(_GOOD, conditions=replace(_GOOD.conditions, foreign_cores=1.0)),
            True,
            Verdict.OK,
            "",
        ),
        (replace(_GOOD, quiet=False), True, Verdict.CONTENDED, "TuneFleet"),
        (replace(_GOOD, samples_s=(1.0, 1.2, 1.1)), True, Verdict.NOISY, "9%"),
        (_spoilt(waited_share=0.4), False, Verdict.CONTENDED, "waited for a core 40%"),
        (_spoilt(foreign_cores=1.0), False, Verdict.CONTENDED, "1.40 times"),
        (_spoilt(steal_cores=0.5), True, Verdict.CONTENDED, "hypervisor"),
        (_spoilt("75 degrees"), False, Verdict.THROTTLED, "75 degrees"),
        (_spoilt("75 degrees", foreign_cores=1.0), False, Verdict.CONTENDED, "1.00 cores"),
        (_spoilt(), True, Verdict.CONTENDED, "a neighbour on the host"),
        (_spoilt(), False, Verdict.THROTTLED, "clock"),
    ],
)
def test_verdicts(found: Findings, virtual: bool, verdict: Verdict, says: str) -> None:
    given, error = judge(found, virtual=virtual)
    assert given == verdict
    assert says in error
