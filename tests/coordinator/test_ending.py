"""When a campaign has tuned for long enough: its rules, and a coordinator that follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import FINGERPRINT, KEY, OTHER_KEY, TARGET, campaign, device, task, trial
from task_samples import progress

from coordinator.campaigns.ending import time_limit_reached, together, why_group_rests
from coordinator.campaigns.finals import (
    FINALISTS,
    FINALS_ACTIVITY,
    PASSES,
    TIME_SHARE,
    reserved_s,
)
from coordinator.campaigns.gains import Outlook
from coordinator.server.app import Wiring
from coordinator.server.bus import Bus
from coordinator.server.core import Core
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import CampaignState, GroupRecord, LeaseState, TaskProgress
from coordinator.state.sql import open_store
from coordinator.wiring import wire
from tunefleet.leases import Lease, ReplaySpec, RoundSpec
from tunefleet.trials import Trial, Verdict

BUDGET = 10_000
STALLED = progress("stalled", *[1.0] * 9)


def why(*tasks: TaskProgress, budget: int = BUDGET, min_gain: float = 0.001) -> str:
    return why_group_rests(Outlook(tasks), budget, min_gain)


class TestRules:
    def test_it_goes_on_while_a_round_promises_enough(self) -> None:
        assert why(progress("improves", 2.0, 1.0)) == ""
        assert why(STALLED, progress("improves", 2.0, 1.0)) == ""

    def test_it_ends_where_no_round_does(self) -> None:
        said = "the next round was expected to gain less than"
        assert why(STALLED) == f"{said} 0.1 %"
        assert why(STALLED, progress("half", 2.0, 1.0), min_gain=0.25) == f"{said} 25 %"

    def test_without_a_least_gain_it_uses_its_budget(self) -> None:
        assert why(STALLED, min_gain=0.0) == ""
        assert why(STALLED, min_gain=0.0, budget=9 * 16) == "all trials were made"

    def test_what_was_never_tried_keeps_it_going(self) -> None:
        assert why(STALLED, progress("fresh")) == ""

    def test_a_baseline_that_is_due_keeps_it_going(self) -> None:
        assert why(STALLED, progress("small", 1e-9, has_baseline=False)) == ""
        assert why(progress("done", 1e-9, exhausted=True, has_baseline=False)) == ""
        assert why(STALLED, progress("small", 1e-9, 1e-9, has_baseline=False)) != ""

    def test_what_failed_keeps_it_going_until_it_is_hopeless(self) -> None:
        assert why(STALLED, progress("broken", rounds=2)) == ""
        assert why(STALLED, progress("broken", rounds=3)).endswith("less than 0.1 %")
        assert why(progress("broken", rounds=3)) == "nothing was left to try"

    def test_it_ends_where_every_search_is_exhausted(self) -> None:
        done = progress("done", 2.0, 1.0, exhausted=True)
        assert why(done) == "nothing was left to try"
        assert why(done, STALLED).endswith("less than 0.1 %")
        assert why() == "nothing was left to try"


def test_groups_that_end_alike_say_it_once() -> None:
    assert together(["a", "b", "a"]) == "a; b"
    assert together([]) == "nothing was left to try"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(600.0, "10m"), (90.0, "1m30s"), (5400.0, "1h30m"), (0.25, "0.25s"), (7200.0, "2h")],
)
def test_a_time_limit_is_written_as_it_was_typed(seconds: float, written: str) -> None:
    assert time_limit_reached(seconds) == f"the time limit of {written} was reached"


class Fleet:
    """A whole coordinator and a device that measures what the test says."""

    def __init__(self, core: Core, wiring: Wiring) -> None:
        self.core = core
        self.planner = wiring.planner
        self.runner = wiring.background[0]
        self.made = 0

    def tune(self, min_gain: float, **spec: object) -> None:
        made = campaign(groups=(GROUP,), trials_wanted=BUDGET)
        spec = {"min_gain": min_gain, **spec}
        self.core.store.create_campaign(replace(made, spec=replace(made.spec, **spec)), "")  # type: ignore[arg-type]
        self.core.store.add_tasks("c-1", [task(KEY, "one"), task(OTHER_KEY, "other")])

    async def work(self, *, rounds: int = BUDGET, verdict: Verdict = Verdict.OK) -> int:
        """Measure the same latency until there is no more to do; returns the trials made."""
        before = self.made
        for _ in range(rounds):
            lease = self.planner.next_lease(device("one"))
            if lease is None:
                break
            assert isinstance(lease.work, RoundSpec)
            samples = (0.001,) if verdict is Verdict.OK else ()
            numbers = range(self.made, self.made + lease.work.trials)
            self.made += lease.work.trials
            self.report(
                lease,
                [trial(n, lease.lease_id, samples_s=samples, verdict=verdict) for n in numbers],
            )
        return self.made - before

    def report(self, lease: Lease, batch: Sequence[Trial]) -> None:
        """End a lease with its trials."""
        store, token = self.core.store, lease.fencing_token
        store.ingest_trials("id-one", lease.lease_id, token, batch, self.core.clock())
        phases = {"search": 0.1 * len(batch)}
        store.end_lease(lease.lease_id, token, LeaseState.DONE, phase_seconds=phases)

    async def measure_again(self, latency_s: float = 0.001) -> int:
        """Do what the campaign asks for when it tries no more; returns the trials made."""
        made = 0
        while lease := self.planner.next_lease(device("one")):
            assert isinstance(lease.work, ReplaySpec)
            made += len(lease.work.traces)
            again = [
                replace(
                    trial(int(t.candidate, 16), lease.lease_id, samples_s=(latency_s,)),
                    trace=t.trace,
                )
                for t in lease.work.traces
            ]
            self.report(lease, again)
        return made

    async def ended(self, *, wholly: bool = False) -> str:
        """Let the runner look at the campaign until it tries no more; returns what it says.

        With ``wholly``, until it is no longer tuning, either.
        """
        running = asyncio.create_task(self.runner())
        try:
            async with asyncio.timeout(60):
                while not self._has_ended(wholly=wholly):
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return self.core.store.get_campaign("c-1").tuning_ended

    def _has_ended(self, *, wholly: bool) -> bool:
        now = self.core.store.get_campaign("c-1")
        tunes = now.state is CampaignState.TUNING
        return bool(now.tuning_ended) and not (wholly and tunes)


GROUP = GroupRecord(TARGET, FINGERPRINT, prepared_digest="4" * 64, untuned_digest="5" * 64)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    home = Home(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    store.put_device(device("one"))
    core = Core(home, store, BlobStore(home.blobs_dir), Bus())
    yield Fleet(core, wire(core))
    store.close()


class TestCoordinator:
    async def test_a_campaign_ends_by_itself_and_says_so(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.01)
        assert 0 < await fleet.work() < BUDGET / 10
        assert await fleet.ended() == "the next round was expected to gain less than 1 %"

    async def test_the_best_are_measured_again_before_it_ends(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.0)
        fleet.core.store.update_campaign("c-1", [], trials_wanted=300)
        await fleet.work()
        assert await fleet.ended() == "all trials were made"
        now = fleet.core.store.get_campaign("c-1")
        assert (now.state, now.activity) == (CampaignState.TUNING, FINALS_ACTIVITY)
        assert await fleet.measure_again() == 2 * FINALISTS * PASSES
        # Another runner takes it up, as after a restart.
        assert await fleet.ended(wholly=True) == "all trials were made"
        assert fleet.core.store.count_trials("c-1") == 300 + 2 * FINALISTS * PASSES

    async def test_a_share_of_the_time_is_kept_for_it(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.0, time_limit_s=1000.0)
        await fleet.work(rounds=1)
        assert reserved_s(fleet.core.store, fleet.core.store.get_campaign("c-1")) == 0.0
        await fleet.work(rounds=3)
        fleet.core.store.update_campaign("c-1", [], tuning_s=1000.0 * (1 - TIME_SHARE))
        lease = fleet.planner.next_lease(device("one"))
        assert lease is not None
        fleet.report(lease, [trial(10_000, lease.lease_id, samples_s=(0.001,))])
        kept_s = reserved_s(fleet.core.store, fleet.core.store.get_campaign("c-1"))
        assert 0 < kept_s < 1000.0 * TIME_SHARE
        fleet.core.store.update_campaign("c-1", [], tuning_s=1000.0 - kept_s)
        lease = fleet.planner.next_lease(device("one"))
        assert lease is not None
        assert isinstance(lease.work, RoundSpec)
        assert lease.work.trials == 1, "no time is left for more"
        fleet.report(lease, [trial(10_001, lease.lease_id, samples_s=(0.001,))])
        assert await fleet.ended() == "the time limit of 16m40s was reached"
        assert await fleet.measure_again() > 0
        await fleet.ended(wholly=True)

    async def test_it_is_not_ended_while_a_device_is_at_work(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.01)
        await fleet.work(rounds=1)
        lease = fleet.planner.next_lease(device("one"))
        assert lease is not None
        ending = asyncio.create_task(fleet.ended())
        done, _ = await asyncio.wait({ending}, timeout=2.5)
        assert not done
        fleet.core.store.end_lease(lease.lease_id, lease.fencing_token, LeaseState.RETURNED)
        await fleet.work()
        assert (await ending).startswith("the next round")

    async def test_a_campaign_without_a_least_gain_makes_all_its_trials(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.0)
        fleet.core.store.update_campaign("c-1", [], trials_wanted=300)
        assert await fleet.work() == 300
        assert await fleet.ended() == "all trials were made"

    async def test_a_time_limit_ends_it_before(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.0, time_limit_s=0.5)
        await fleet.work(rounds=2)
        assert await fleet.ended() == "the time limit of 0.5s was reached"

    async def test_a_network_that_nothing_can_measure_is_let_go(self, fleet: Fleet) -> None:
        fleet.tune(min_gain=0.001)
        await fleet.work(verdict=Verdict.CRASHED)
        assert await fleet.ended() == "nothing was left to try"
