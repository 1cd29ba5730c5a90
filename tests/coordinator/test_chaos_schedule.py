"""The chaos bench's schedule: the same seed, the same faults; every kind, and to everybody."""

from __future__ import annotations

from itertools import pairwise

from scripts.benches.chaos_schedule import LONG_STOP_S, Kind, Role, schedule

HOUR_S = 3600.0


def test_a_seed_draws_the_same_faults_again_and_another_one_others() -> None:
    assert list(schedule(7, 60.0)) == list(schedule(7, 60.0))
    assert list(schedule(7, 60.0)) != list(schedule(8, 60.0))


def test_faults_come_in_order_and_none_after_the_end() -> None:
    faults = list(schedule(0, 600.0))
    assert all(before.at_s <= after.at_s for before, after in pairwise(faults))
    assert faults[0].at_s > 0.0
    assert faults[-1].at_s < 600.0


def test_ten_minutes_see_about_two_hundred_faults() -> None:
    assert 150 < len(list(schedule(0, 600.0))) < 250


def test_every_kind_strikes_and_every_role_is_struck() -> None:
    faults = list(schedule(0, HOUR_S))
    assert {fault.kind for fault in faults} == set(Kind)
    assert {fault.role for fault in faults if fault.kind is Kind.KILL} == set(Role)
    assert {fault.role for fault in faults if fault.kind is Kind.STOP} == set(Role)


def test_some_stops_outlast_a_lease() -> None:
    stops = [fault.seconds for fault in schedule(0, HOUR_S) if fault.kind is Kind.STOP]
    assert LONG_STOP_S in stops
    assert stops.count(LONG_STOP_S) < len(stops) / 4
