"""What every Store must do with trials of other coordinators, and for replays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import (
    KEY,
    NOW,
    OTHER_KEY,
    PROFILE,
    TARGET,
    campaign,
    device,
    lease,
    reason_of,
    task,
    trial,
)

from coordinator.state.records import (
    LeaseKind,
)
from coordinator.state.store import Store
from coordinator.state.trial_records import KnownCandidate, MeasuredTrial, TrialFilter, TrialRecord
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Conditions, Verdict


def imported_trial(number: int, lease_id: str = "l-far", **changes: object) -> TrialRecord:
    """Make a trial that another coordinator's agent measured."""
    record = TrialRecord(
        key=replace(KEY, fingerprint="f" * 16),
        device_id="id-far",
        campaign_id="c-far",
        task="conv2d",
        sources={"resnet50": 2},
        trial=trial(number, lease_id),
    )
    return replace(record, **changes)  # type: ignore[arg-type]


class TestDatasets:
    def test_a_trial_is_read_back_whole(self, busy_store: Store) -> None:
        full = trial(
            1,
            error="slow",
            explored=True,
            build_s=0.5,
            run_s=0.25,
            conditions=Conditions(clock_mhz=1e3, memory_available_bytes=5),
        )
        busy_store.ingest_trials("id-pi4", "l-1", 1, [full], NOW)
        assert list(busy_store.trial_records(TrialFilter())) == [
            TrialRecord(KEY, "id-pi4", "c-1", "conv2d", {}, full)
        ]

    def test_trials_come_set_by_set_over_pages(self, busy_store: Store) -> None:
        busy_store.put_device(device("twin"))
        busy_store.grant_lease(lease("l-2", 2, "id-twin", workload=OTHER_KEY.workload))
        for start in range(1, 1200, 300):
            numbers = range(start, start + 300)
            other = [trial(n, "l-2") for n in numbers]
            busy_store.ingest_trials("id-twin", "l-2", 2, other, NOW)
            busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(n) for n in numbers], NOW)
        read = [(r.key, r.trial.candidate) for r in busy_store.trial_records(TrialFilter())]
        names = [trial(n).candidate for n in range(1, 1201)]
        assert read == [(KEY, n) for n in names] + [(OTHER_KEY, n) for n in names]

    @pytest.mark.parametrize(
        ("chosen", "numbers"),
        [
            (TrialFilter(campaign_ids=("c-1",)), [1]),
            (TrialFilter(device_ids=("id-far",)), [2]),
            (TrialFilter(targets=(TARGET,)), [1, 2]),
            (TrialFilter(targets=("other",)), []),
            (TrialFilter(campaign_ids=("c-1",), device_ids=("id-far",)), []),
        ],
    )
    def test_a_filter_chooses(
        self, importing_store: Store, chosen: TrialFilter, numbers: list[int]
    ) -> None:
        importing_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        importing_store.import_trials("c-2", [imported_trial(2)], NOW)
        read = [int(r.trial.candidate, 16) for r in importing_store.trial_records(chosen)]
        assert sorted(read) == numbers
        counts = importing_store.count_trials_by_verdict(chosen)
        assert sum(count.trials for count in counts) == len(numbers)

    def test_counts_tell_verdicts_features_and_latencies(self, busy_store: Store) -> None:
        failed = trial(3, verdict=Verdict.CRASHED, samples_s=(), features=None)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), trial(2), failed], NOW)
        counted = {
            c.verdict: (c.trials, c.featured, c.fastest_s, c.slowest_s)
            for c in busy_store.count_trials_by_verdict(TrialFilter())
        }
        assert counted == {"ok": (2, 2, 1e-3, 2e-3), "crashed": (1, 0, None, None)}

    def test_workloads_of_all_campaigns_come_once_with_every_source(
        self, busy_store: Store
    ) -> None:
        busy_store.create_campaign(campaign("c-2"), "")
        without = replace(task(), workload_digest="", sources={"resnet50": 2})
        busy_store.add_tasks("c-2", [without])
        busy_store.create_campaign(campaign("c-3"), "")
        busy_store.add_tasks("c-3", [replace(without, sources={"vgg19": 1})])
        first, second = busy_store.list_workloads()
        assert (first.workload, first.name, first.digest) == (KEY.workload, "conv2d", "1" * 64)
        assert first.sources == {"resnet50": 2, "vgg19": 1}
        assert second.workload == OTHER_KEY.workload

    def test_profiles_of_all_hardware_a_device_was_are_listed(self, store: Store) -> None:
        store.put_device(device())
        store.put_device(device(profile=replace(PROFILE, logical_cores=64)))
        profiles = store.list_profiles()
        assert sorted(p.profile.logical_cores for p in profiles) == [2, 64]
        assert {(p.device_id, p.name) for p in profiles} == {("id-pi4", "pi4")}


@pytest.fixture
def importing_store(busy_store: Store) -> Store:
    """A busy store with a device of another coordinator and a campaign to import it for."""
    busy_store.put_device(device("far", imported=True))
    busy_store.create_campaign(campaign("c-2"), "")
    busy_store.add_tasks("c-2", [task(imported_trial(1).key)])
    return busy_store


class TestImports:
    def test_imported_trials_come_back_as_they_were(self, importing_store: Store) -> None:
        records = [imported_trial(1), imported_trial(2, lease_id="l-far2")]
        outcome = importing_store.import_trials("c-2", records, NOW)
        assert (outcome.new, dict(outcome.rejected)) == (2, {})
        read = list(importing_store.trial_records(TrialFilter()))
        assert read == [replace(r, sources={}) for r in records]

    def test_importing_twice_changes_nothing(self, importing_store: Store) -> None:
        records = [imported_trial(1), imported_trial(1), imported_trial(2)]
        importing_store.import_trials("c-2", records, NOW)
        again = importing_store.import_trials("c-2", records, NOW)
        assert (again.new, len(set(again.stored)), dict(again.rejected)) == (0, 2, {})
        assert importing_store.get_device("far").trials == 2
        (progress,) = importing_store.task_progress("c-2")
        assert (progress.trials, progress.measured, progress.best_s) == (2, 2, 1e-3)

    def test_own_trials_that_come_back_are_known(self, importing_store: Store) -> None:
        importing_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        own = list(importing_store.trial_records(TrialFilter()))
        outcome = importing_store.import_trials("c-2", own, NOW)
        assert (outcome.new, outcome.stored) == (0, (trial(1).trial_id,))

    @pytest.mark.parametrize(
        ("record", "why"),
        [
            (imported_trial(9, trial=trial(2, "l-1")), "own"),
            (imported_trial(9, key=OTHER_KEY), "another task"),
            (imported_trial(9, trial=trial(9, trial_id=trial(1, "l-far").trial_id)), "its name"),
        ],
        ids=["own lease", "another task's lease", "another trial's name"],
    )
    def test_a_trial_that_contradicts_is_rejected_alone(
        self, importing_store: Store, record: TrialRecord, why: str
    ) -> None:
        importing_store.import_trials("c-2", [imported_trial(1)], NOW)
        outcome = importing_store.import_trials("c-2", [record, imported_trial(3)], NOW)
        assert outcome.new == 1
        assert why in outcome.rejected[record.trial.trial_id]

    def test_imported_records_count_for_their_record_set(self, importing_store: Store) -> None:
        importing_store.import_trials("c-2", [imported_trial(4), imported_trial(3)], NOW)
        key = imported_trial(1).key
        assert [k.latency_s for k in importing_store.best_candidates(key, 1)] == [3e-3]
        assert importing_store.best_candidates(KEY, 1) == []
        assert len(list(importing_store.training_rows())) == 2

    def test_nobody_can_report_under_an_imported_lease(self, importing_store: Store) -> None:
        importing_store.import_trials("c-2", [imported_trial(1)], NOW)
        outcome = importing_store.ingest_trials("id-far", "l-far", 0, [trial(5, "l-far")], NOW)
        assert (outcome.stored, outcome.new) == ((), 0)

    def test_devices_and_campaigns_must_be_known(self, busy_store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            busy_store.import_trials("c-1", [imported_trial(1)], NOW)
        assert reason_of(raised) is Reason.DEVICE_UNKNOWN
        with pytest.raises(TuneFleetError) as raised:
            busy_store.import_trials("c-9", [], NOW)
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN

    def test_a_device_that_registers_is_imported_no_more(self, importing_store: Store) -> None:
        assert importing_store.get_device("far").imported
        importing_store.put_device(device("far"))
        assert not importing_store.get_device("far").imported


class TestFeatures:
    def waiting(self, store: Store) -> list[str]:
        return [r.trial.candidate for r in store.unfeatured("c-1", 10)]

    def test_trials_without_features_wait_for_them(self, busy_store: Store) -> None:
        bare = [trial(n, features=None) for n in (2, 3)]
        again = trial(3, features=None, trial_id="again")
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), *bare, again], NOW)
        assert busy_store.count_unfeatured("c-1") == 3
        assert self.waiting(busy_store) == [t.candidate for t in bare]
        assert busy_store.unfeatured("c-1", 10, besides=[KEY]) == []

    def test_what_was_computed_is_kept_and_waits_no_longer(self, busy_store: Store) -> None:
        bare = [trial(n, features=None) for n in (1, 2, 3)]
        busy_store.ingest_trials("id-pi4", "l-1", 1, bare, NOW)
        found = trial(1).features
        assert found is not None
        names = [t.candidate for t in bare]
        busy_store.put_features(KEY, {names[0]: found}, {names[1]: "does not apply"})
        assert self.waiting(busy_store) == [names[2]]
        stored = {r.trial.candidate: r.trial for r in busy_store.trial_records(TrialFilter())}
        assert stored[names[0]] == trial(1)
        assert stored[names[1]].features is None
        assert stored[names[1]].error == "no features: does not apply"
        assert [row.candidate for row in busy_store.training_rows()] == [names[0]]

    def test_another_campaign_of_the_same_task_can_have_them_computed(
        self, busy_store: Store
    ) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1, features=None)], NOW)
        busy_store.create_campaign(campaign("c-2"), "")
        assert busy_store.count_unfeatured("c-2") == 0
        busy_store.add_tasks("c-2", [task()])
        assert busy_store.count_unfeatured("c-2") == 1
        assert [r.trial.candidate for r in busy_store.unfeatured("c-2", 10)] == [trial(1).candidate]

    def test_features_that_are_there_are_never_replaced(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        other = trial(9).features
        assert other is not None
        busy_store.put_features(KEY, {trial(1).candidate: other}, {})
        assert [r.trial.features for r in busy_store.trial_records(TrialFilter())] == [
            trial(1).features
        ]

    def test_a_task_without_a_module_is_left_out(self, store: Store) -> None:
        store.put_device(device())
        store.create_campaign(campaign(), "")
        store.add_tasks("c-1", [replace(task(), workload_digest="")])
        store.grant_lease(lease())
        store.ingest_trials("id-pi4", "l-1", 1, [trial(1, features=None)], NOW)
        assert store.count_unfeatured("c-1") == 0
        assert self.waiting(store) == []


class TestReplays:
    @pytest.fixture
    def replaying(self, busy_store: Store) -> Store:
        """A store with three measured trials that campaign ``c-2`` replays on another target."""
        failed = trial(4, verdict=Verdict.CRASHED, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(n) for n in (3, 1, 2)], NOW)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [failed], NOW)
        busy_store.cancel_leases("c-1")
        busy_store.create_campaign(campaign("c-2"), "")
        busy_store.add_tasks("c-2", [task(self.THERE)])
        return busy_store

    THERE = replace(KEY, target="{}")

    def test_measured_trials_come_fastest_first(self, replaying: Store) -> None:
        assert replaying.measured_trials(KEY, "c-1") == [
            MeasuredTrial(trial(n).trial_id, trial(n).candidate, n / 1000) for n in (1, 2, 3)
        ]
        assert replaying.measured_trials(KEY, "c-2") == []
        assert len(replaying.measured_trials(KEY)) == 3

    def test_planned_schedules_wait_until_the_campaign_has_measured_them(
        self, replaying: Store
    ) -> None:
        names = [trial(n).trial_id for n in (2, 3)]
        replaying.plan_replays("c-2", self.THERE, names)
        replaying.plan_replays("c-2", self.THERE, names)
        assert replaying.pending_replays("c-2", self.THERE, 10) == [
            KnownCandidate(trial(n).candidate, trial(n).trace, n / 1000) for n in (2, 3)
        ]
        replaying.grant_lease(
            lease("l-2", 2, campaign_id="c-2", kind=LeaseKind.REPLAY, target=self.THERE.target)
        )
        again = trial(2, "l-2", samples_s=(5e-3,))
        replaying.ingest_trials("id-pi4", "l-2", 2, [again], NOW)
        assert [k.candidate for k in replaying.pending_replays("c-2", self.THERE, 10)] == [
            trial(3).candidate
        ]
        assert [k.candidate for k in replaying.pending_replays("c-2", self.THERE, 10, times=2)] == [
            trial(n).candidate for n in (2, 3)
        ]
        first, second = replaying.replay_pairs("c-2")
        assert (first.key, first.before_s, first.after_s) == (self.THERE, 2e-3, 5e-3)
        assert (first.before_target, first.verdict) == (KEY.target, "ok")
        assert (second.before_s, second.after_s, second.verdict) == (3e-3, None, "")

    def test_a_candidate_is_planned_once_whichever_trial_it_came_from(
        self, replaying: Store
    ) -> None:
        replaying.grant_lease(lease("l-2", 2))
        again = trial(1, "l-2", samples_s=(9e-3,))
        replaying.ingest_trials("id-pi4", "l-2", 2, [again], NOW)
        replaying.plan_replays("c-2", self.THERE, [trial(1).trial_id, again.trial_id])
        assert len(replaying.replay_pairs("c-2")) == 1
