"""Leases for known schedules: features that are missing, and replays; on a real store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import (
    FINGERPRINT,
    KEY,
    NOW,
    OTHER_KEY,
    TARGET,
    campaign,
    device,
    lease,
    task,
    trial,
)

from coordinator.campaigns.comparison import compare, kendall_tau
from coordinator.campaigns.featurizing import FEATURIZE_ATTEMPTS, TRACES_BYTES, fitting
from coordinator.campaigns.planner import LeasePlanner
from coordinator.campaigns.replaying import REPLAY_ATTEMPTS, Replayer, replayed, spread
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignState,
    GroupRecord,
    LeaseKind,
    LeaseState,
    ReplaySource,
)
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import MeasuredTrial, ReplayPair, TrialFilter
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import (
    FeaturizedTrace,
    FeaturizeSpec,
    Lease,
    NamedTrace,
    ReplaySpec,
)
from tunefleet.trials import Trial

WIDE = '{"kind":"llvm","mcpu":"x86-64-v3","num-cores":1}'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    made.put_device(device("one"))
    made.put_device(device("two"))
    yield made
    made.close()


@pytest.fixture
def planner(store: Store) -> LeasePlanner:
    return LeasePlanner(store, Bus(), clock=lambda: NOW)


def of_purpose(purpose: CampaignPurpose, campaign_id: str, **changes: object) -> CampaignRecord:
    made = campaign(campaign_id, **changes)
    replay = ReplaySource("c-1") if purpose is CampaignPurpose.REPLAY else None
    return replace(made, spec=replace(made.spec, purpose=purpose, replay=replay))


def measured(store: Store, *trials: Trial) -> None:
    """Store trials of the first task, measured for campaign ``c-1``, which is done."""
    store.create_campaign(campaign(state=CampaignState.DONE), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease(device_id="id-one"))
    store.ingest_trials("id-one", "l-1", 1, trials, NOW)
    store.end_lease("l-1", 1, LeaseState.DONE)


async def granted(planner: LeasePlanner, name: str = "one") -> Lease:
    found = planner.next_lease(device(name))
    assert found is not None
    return found


class TestFeaturizing:
    @pytest.fixture
    def importing(self, store: Store) -> Store:
        """A store whose campaign ``c-1`` imports three trials without features."""
        measured(store, *[trial(n, features=None) for n in (1, 2, 3)])
        store.update_campaign(
            "c-1",
            [],
            state=CampaignState.TUNING,
            spec=of_purpose(CampaignPurpose.IMPORT, "c-1").spec,
        )
        return store

    async def test_any_device_is_asked_for_what_is_missing(
        self, importing: Store, planner: LeasePlanner
    ) -> None:
        work = (await granted(planner)).work
        assert isinstance(work, FeaturizeSpec)
        assert (work.workload, work.target) == (KEY.workload, TARGET)
        assert work.traces == tuple(
            NamedTrace(trial(n).candidate, trial(n).trace) for n in (1, 2, 3)
        )
        assert planner.next_lease(device("two")) is None

    async def test_what_came_is_kept_and_what_cannot_be_waits_no_more(
        self, importing: Store, planner: LeasePlanner
    ) -> None:
        given = await granted(planner)
        results = [
            FeaturizedTrace(trial(1).candidate, trial(1).features),
            FeaturizedTrace(trial(2).candidate, error="does not apply"),
            FeaturizedTrace("f" * 16, trial(9).features),
        ]
        ended = importing.end_lease(given.lease_id, given.fencing_token, LeaseState.DONE)
        planner.featurized(ended, results, "")
        planner.featurized(ended, results, "")
        stored = {r.trial.candidate: r.trial for r in importing.trial_records(TrialFilter())}
        assert stored[trial(1).candidate].features == trial(1).features
        assert stored[trial(2).candidate].error == "no features: does not apply"
        again = (await granted(planner)).work
        assert isinstance(again, FeaturizeSpec)
        assert [t.candidate for t in again.traces] == [trial(3).candidate]

    async def test_work_that_fails_again_and_again_is_given_up(
        self, importing: Store, planner: LeasePlanner
    ) -> None:
        for _ in range(FEATURIZE_ATTEMPTS):
            given = await granted(planner)
            ended = importing.end_lease(given.lease_id, given.fencing_token, LeaseState.FAILED)
            planner.featurized(ended, [], "another workload")
        assert planner.next_lease(device("one")) is None
        assert importing.count_unfeatured("c-1") == 0
        errors = {r.trial.error for r in importing.trial_records(TrialFilter())}
        assert errors == {"no features: another workload"}

    def test_a_lease_brings_no_more_than_fits_into_a_message(self) -> None:
        large = [NamedTrace(f"{n:016x}", "x" * (TRACES_BYTES // 2)) for n in range(5)]
        assert len(fitting(large)) == 2
        assert len(fitting([NamedTrace("0" * 16, "x" * 2 * TRACES_BYTES)])) == 1


class TestReplays:
    @pytest.fixture
    def replayer(self, store: Store, tmp_path: Path) -> Replayer:
        return Replayer(store, BlobStore(tmp_path / "blobs"), Bus(), clock=lambda: NOW)

    async def begun(
        self, store: Store, replayer: Replayer, source: ReplaySource, **spec: object
    ) -> CampaignRecord:
        """Start a replay of campaign ``c-1`` as ``c-2``."""
        made = of_purpose(CampaignPurpose.REPLAY, "c-2", state=CampaignState.IMPORTING)
        made = replace(made, spec=replace(made.spec, replay=source, **spec))  # type: ignore[arg-type]
        store.create_campaign(made, "")
        await replayer.plan(made)
        return store.get_campaign("c-2")

    async def test_schedules_are_measured_again_though_they_are_known(
        self, store: Store, planner: LeasePlanner, replayer: Replayer
    ) -> None:
        measured(store, *[trial(n) for n in (3, 1, 2)])
        begun = await self.begun(store, replayer, ReplaySource("c-1", best=2))
        assert (begun.state, begun.trials_wanted) == (CampaignState.TUNING, 2)
        given = await granted(planner)
        assert isinstance(given.work, ReplaySpec)
        assert [t.candidate for t in given.work.traces] == [
            trial(1).candidate,
            trial(2).candidate,
        ]
        again = [trial(n, given.lease_id) for n in (1, 2)]
        outcome = store.ingest_trials("id-one", given.lease_id, given.fencing_token, again, NOW)
        assert outcome.new == 2
        assert replayed(store, begun)

    async def test_another_target_gets_the_schedules_under_its_own_records(
        self, store: Store, planner: LeasePlanner, replayer: Replayer
    ) -> None:
        measured(store, trial(1))
        begun = await self.begun(store, replayer, ReplaySource("c-1"), targets=(WIDE,))
        assert begun.groups == (GroupRecord(WIDE, FINGERPRINT, "", ""),)
        given = await granted(planner)
        assert isinstance(given.work, ReplaySpec)
        assert given.work.target == WIDE
        store.ingest_trials(
            "id-one", given.lease_id, given.fencing_token, [trial(1, given.lease_id)], NOW
        )
        assert len(store.measured_trials(KEY)) == 1
        assert len(store.measured_trials(replace(KEY, target=WIDE))) == 1

    async def test_a_task_whose_leases_fail_is_left_alone(
        self, store: Store, planner: LeasePlanner, replayer: Replayer
    ) -> None:
        measured(store, trial(1))
        begun = await self.begun(store, replayer, ReplaySource("c-1"))
        for _ in range(REPLAY_ATTEMPTS):
            given = await granted(planner)
            ended = store.end_lease(given.lease_id, given.fencing_token, LeaseState.FAILED)
            assert ended.kind is LeaseKind.REPLAY
            planner.round_done(ended)
        assert planner.next_lease(device("one")) is None
        assert replayed(store, begun)

    async def test_the_end_compares_before_and_after(
        self, store: Store, planner: LeasePlanner, replayer: Replayer
    ) -> None:
        measured(store, trial(1), trial(2))
        begun = await self.begun(store, replayer, ReplaySource("c-1"))
        given = await granted(planner)
        again = [trial(n, given.lease_id, samples_s=(n * 1.1e-3,)) for n in (1, 2)]
        store.ingest_trials("id-one", given.lease_id, given.fencing_token, again, NOW)
        store.update_campaign("c-2", [], state=CampaignState.FINISHING)
        await replayer.finish(begun)
        ended = store.get_campaign("c-2")
        assert ended.state is CampaignState.DONE
        assert [a.path for a in ended.artifacts] == ["replay.json"]

    async def test_nothing_to_replay_is_refused_with_the_reason(
        self, store: Store, replayer: Replayer
    ) -> None:
        measured(store)
        with pytest.raises(TuneFleetError, match="no measured schedules") as raised:
            await self.begun(store, replayer, ReplaySource("c-1"))
        assert raised.value.reason is Reason.CAMPAIGN_STATE

    async def test_what_a_dataset_left_with_whoever_brought_it_first_is_replayed_too(
        self, store: Store, replayer: Replayer
    ) -> None:
        measured(store, trial(1))
        store.create_campaign(campaign("c-3", state=CampaignState.DONE), "")
        store.add_tasks("c-3", [task(), task(OTHER_KEY)])
        begun = await self.begun(store, replayer, ReplaySource("c-3"))
        assert begun.trials_wanted == 1


def trials_of(count: int) -> list[MeasuredTrial]:
    return [MeasuredTrial(str(n), f"{n:016x}", float(n)) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "picked"),
    [(0, [0, 1, 2, 3, 4, 5, 6]), (1, [0]), (2, [0, 6]), (3, [0, 3, 6]), (9, list(range(7)))],
)
def test_a_spread_takes_both_ends(count: int, picked: list[int]) -> None:
    assert [t.latency_s for t in spread(trials_of(7), count)] == picked


def pair(before: float, after: float | None, workload: str = "a", **changes: object) -> ReplayPair:
    made = ReplayPair(
        key=replace(KEY, workload=workload),
        candidate="0" * 16,
        before_s=before,
        before_target=TARGET,
        before_fingerprint=FINGERPRINT,
        after_s=after,
        verdict="ok" if after else "timeout",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


class TestComparison:
    def test_figures_of_one_hardware(self) -> None:
        pairs = [pair(1.0, 1.02), pair(2.0, 2.2), pair(4.0, 4.0), pair(8.0, None)]
        [group] = compare(pairs)["groups"]
        assert (group["planned"], group["compared"]) == (4, 3)
        assert group["same_hardware"]
        assert group["median_ratio"] == pytest.approx(1.02)
        assert group["share_within_5_percent"] == pytest.approx(2 / 3)
        assert group["kendall_tau"] == 1.0
        assert group["verdicts"] == {"ok": 3, "timeout": 1}

    def test_order_counts_within_tasks_only(self) -> None:
        pairs = [pair(1.0, 2.0), pair(2.0, 1.0), pair(10.0, 20.0, "b"), pair(20.0, 10.0, "b")]
        [group] = compare(pairs)["groups"]
        assert group["kendall_tau"] == -1.0

    def test_other_hardware_before_is_told(self) -> None:
        [group] = compare([pair(1.0, 1.0, before_target=WIDE)])["groups"]
        assert not group["same_hardware"]
        assert group["kendall_tau"] is None

    @pytest.mark.parametrize(
        ("pairs", "tau"),
        [
            ([], None),
            ([(1, 1), (1, 2)], None),
            ([(1, 1), (2, 2), (3, 3), (4, 4)], 1.0),
            ([(1, 1), (2, 3), (3, 2), (4, 4)], 4 / 6),
            # Four pairs are concordant; of the six, five differ before and five after.
            ([(1, 1), (2, 2), (2, 3), (3, 3)], 0.8),
        ],
    )
    def test_kendalls_tau_with_ties(
        self, pairs: list[tuple[float, float]], tau: float | None
    ) -> None:
        assert kendall_tau(pairs) == (None if tau is None else pytest.approx(tau))
