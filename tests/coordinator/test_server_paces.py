from __future__ import annotations

import pytest

from coordinator.campaigns.collecting import collecting_round_trials, collecting_search
from coordinator.server.agents.paces import Paces
from coordinator.server.bus import Bus
from coordinator.server.limits import (
    HEARTBEAT_INTERVAL_S,
    LONGEST_HEARTBEAT_INTERVAL_S,
    LONGEST_REPORTS_S,
    OFFLINE_AFTER_S,
    QUICKEST_REPORTS_S,
    RETRY_AFTER_S,
)


class Fleet(Bus):
    """So many devices, all of which wait for work."""

    def __init__(self, devices: int) -> None:
        super().__init__()
        self._size = devices

    def connected_devices(self) -> int:
        return self._size

    def waiting_devices(self) -> int:
        return self._size


def test_a_few_devices_speak_often() -> None:
    paces = Paces(Fleet(10))
    assert paces.heartbeat_interval_s() == HEARTBEAT_INTERVAL_S
    assert paces.report_interval_s() == QUICKEST_REPORTS_S
    assert paces.retry_after_s() == RETRY_AFTER_S


def test_of_many_devices_each_speaks_less_often() -> None:
    some, many = Paces(Fleet(700)), Paces(Fleet(900))
    assert HEARTBEAT_INTERVAL_S < some.heartbeat_interval_s() < many.heartbeat_interval_s()
    assert many.retry_after_s() > some.retry_after_s() > RETRY_AFTER_S
    assert Paces(Fleet(100)).report_interval_s() < Paces(Fleet(300)).report_interval_s()


def test_however_many_they_are_nobody_is_taken_for_lost() -> None:
    paces = Paces(Fleet(1_000_000))
    assert paces.heartbeat_interval_s() == LONGEST_HEARTBEAT_INTERVAL_S
    assert 3 * paces.heartbeat_interval_s() < OFFLINE_AFTER_S
    assert paces.report_interval_s() == LONGEST_REPORTS_S


@pytest.mark.parametrize(("devices", "trials"), [(0, 16), (250, 16), (500, 32), (5000, 64)])
def test_rounds_of_collections_grow_with_the_fleet(devices: int, trials: int) -> None:
    assert collecting_round_trials(devices) == trials
    assert collecting_search(trials).population >= 3 * trials
