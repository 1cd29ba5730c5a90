"""Devices that stray from their own history, on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import FINGERPRINT, KEY, NOW, TARGET, campaign, device, task, trial

from coordinator.campaigns.planner import LeasePlanner
from coordinator.campaigns.steadiness import judge
from coordinator.server.bus import Bus
from coordinator.state.records import GroupRecord, LeaseState, Quarantine
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.trials import Conditions, Verdict

STEADY = [0.0020, 0.0021] * 6
RESTING = Quarantine("slow", NOW - 60, NOW, strikes=1)


class TestJudgement:
    def test_little_history_condemns_nobody(self) -> None:
        assert judge([0.002] * 7 + [0.004] * 3, None, NOW) is None

    def test_three_slow_rounds_in_a_row_do(self) -> None:
        assert judge([*STEADY, 0.004, 0.004], None, NOW) is None
        found = judge([*STEADY, 0.004, 0.004, 0.004], None, NOW)
        assert found is not None
        assert "4 ms, 2.00 times the 2 ms that are usual in the 12 rounds before" in found.reason
        assert found.until_unix_s > found.since_unix_s == NOW

    def test_being_faster_than_ever_is_the_new_usual(self) -> None:
        slow_at_first = [0.0046] * 8 + [0.0024] * 3
        assert judge(slow_at_first, None, NOW) is None
        assert judge([*slow_at_first, 0.0046, 0.0046, 0.0046], None, NOW) is not None

    def test_rounds_that_differ_as_steady_machines_do_are_steady(self) -> None:
        assert judge([*STEADY, 0.0023, 0.0019, 0.0024], None, NOW) is None

    def test_one_normal_round_on_probation_is_enough(self) -> None:
        readings = [*STEADY, 0.004, 0.004, 0.004]
        assert judge([*readings, 0.0021], RESTING, NOW) is None

    def test_rests_grow_while_a_device_stays_astray_but_not_for_ever(self) -> None:
        readings = [*STEADY, 0.004, 0.004, 0.004, 0.004]
        second = judge(readings, RESTING, NOW)
        assert second is not None
        assert (second.strikes, second.since_unix_s) == (2, RESTING.since_unix_s)
        tenth = judge(readings, replace(RESTING, strikes=10), NOW)
        assert tenth is not None
        assert 60 < second.until_unix_s - NOW < tenth.until_unix_s - NOW <= 3600

    def test_a_clock_that_is_set_back_keeps_nobody_at_rest(self) -> None:
        resting = device("one", quarantine=Quarantine("slow", NOW, NOW + 60))
        assert resting.is_quarantined(NOW)
        assert not resting.is_quarantined(NOW - 172_800)
        readings = [*STEADY, 0.004, 0.004, 0.004, 0.004]
        again = judge(readings, resting.quarantine, NOW - 172_800)
        assert device("one", quarantine=again).is_quarantined(NOW - 172_800)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    made.put_device(device("one"))
    group = GroupRecord(TARGET, FINGERPRINT, "4" * 64, "5" * 64)
    goes_on = replace(campaign().spec, min_gain=0.0)
    made.create_campaign(campaign(groups=(group,), trials_wanted=10_000, spec=goes_on), "")
    made.add_tasks("c-1", [task()])
    yield made
    made.close()


class Rounds:
    """Does rounds on a device whose reference kernel takes what a test says."""

    def __init__(self, store: Store) -> None:
        self.now = NOW
        self._store = store
        self._planner = LeasePlanner(store, Bus(), clock=lambda: self.now)
        self._candidates = 0

    async def do(self, canary_s: float, verdict: Verdict = Verdict.OK) -> bool:
        """Do a round; returns whether there was one to do."""
        lease = self._planner.next_lease(self._store.get_device("one"))
        if lease is None:
            return False
        self._candidates += 3
        # The second trial met a neighbour: the median does not care.
        readings = (canary_s, 5 * canary_s, canary_s)
        report = [
            trial(
                self._candidates + n,
                lease.lease_id,
                verdict=verdict,
                conditions=Conditions(canary_s=reading),
            )
            for n, reading in enumerate(readings)
        ]
        args = lease.lease_id, lease.fencing_token
        self._store.ingest_trials("id-one", *args, report, self.now)
        ended = self._store.end_lease(*args, LeaseState.DONE)
        self._planner.round_done(ended)
        self._planner.round_done(ended)  # an agent may repeat itself
        return True


async def test_a_device_that_strays_rests_and_is_tried_again(store: Store) -> None:
    rounds = Rounds(store)
    for _ in range(10):
        assert await rounds.do(0.002)
    for _ in range(3):
        assert await rounds.do(0.004)
    assert not await rounds.do(0.002)
    found = store.get_device("one")
    assert found.is_quarantined(rounds.now)
    assert found.quarantine is not None
    assert "its reference kernel took 4 ms" in found.quarantine.reason
    assert found.quarantine.strikes == 1, "what an agent repeats is judged once"

    rounds.now = found.quarantine.until_unix_s
    assert await rounds.do(0.004)
    assert store.get_device("one").is_quarantined(rounds.now)

    rounds.now += 86_400
    assert await rounds.do(0.002)
    assert store.get_device("one").quarantine is None
    assert await rounds.do(0.002)


async def test_what_a_neighbour_disturbs_says_nothing_of_the_device(store: Store) -> None:
    rounds = Rounds(store)
    for _ in range(10):
        assert await rounds.do(0.002)
    for _ in range(5):
        assert await rounds.do(0.004, Verdict.CONTENDED)
    for _ in range(3):
        assert await rounds.do(0.004, Verdict.THROTTLED)
    assert not await rounds.do(0.002)


async def test_a_new_normal_can_be_declared(store: Store) -> None:
    rounds = Rounds(store)
    for canary_s in [0.002] * 10 + [0.004] * 3:
        assert await rounds.do(canary_s)
    store.set_quarantine("id-one", None)
    store.forget_canary("id-one")
    for _ in range(12):
        assert await rounds.do(0.004)


async def test_registering_again_ends_no_quarantine(store: Store) -> None:
    store.set_quarantine("id-one", Quarantine("slow", NOW, NOW + 60))
    store.put_device(device("one"))
    assert store.get_device("one").is_quarantined(NOW)


async def test_agents_that_read_no_canary_are_not_judged(store: Store) -> None:
    planner = LeasePlanner(store, Bus(), clock=lambda: NOW)
    lease = planner.next_lease(device("one"))
    assert lease is not None
    args = lease.lease_id, lease.fencing_token
    store.ingest_trials("id-one", *args, [trial(1, lease.lease_id)], NOW)
    planner.round_done(store.end_lease(*args, LeaseState.DONE))
    assert store.canary_readings("id-one", KEY, 10) == []
