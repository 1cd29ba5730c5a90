"""What every Store must do, whatever database it keeps its records in."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import (
    BACKENDS,
    KEY,
    NOW,
    OTHER_KEY,
    PROFILE,
    TARGET,
    UNMEASURED,
    campaign,
    device,
    lease,
    model,
    task,
    trial,
)

from coordinator.state.records import (
    ArtifactRecord,
    CampaignState,
    GroupRecord,
    LeaseKind,
    LeaseState,
    TaskKey,
)
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import KnownCandidate, MeasuredTrial, TrialFilter, TrialRecord
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.leases import BASELINE_TRACE
from tunefleet.trials import Conditions, Verdict


@pytest.fixture(params=list(BACKENDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def busy_store(store: Store) -> Store:
    """A store with a device that holds a lease on the first of two tasks of a campaign."""
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task(), task(OTHER_KEY, "dense")])
    store.grant_lease(lease())
    return store


def reason_of(raised: pytest.ExceptionInfo[TuneFleetError]) -> Reason:
    return raised.value.reason


class TestDevices:
    def test_a_device_is_read_back_by_id_and_by_name(self, store: Store) -> None:
        store.put_device(device())
        assert store.get_device("id-pi4") == device()
        assert store.get_device("pi4") == device()

    def test_a_second_put_replaces_all_but_the_trials(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.put_device(device(agent_version="0.2.0"))
        assert busy_store.get_device("pi4") == device(agent_version="0.2.0", trials=1)

    def test_two_devices_cannot_share_a_name(self, store: Store) -> None:
        store.put_device(device())
        with pytest.raises(TuneFleetError, match="pi4") as raised:
            store.put_device(device(device_id="id-other"))
        assert reason_of(raised) is Reason.INVALID_ARGUMENT
        assert [d.device_id for d in store.list_devices()] == ["id-pi4"]

    def test_devices_are_listed_by_name(self, store: Store) -> None:
        for name in ("b", "c", "a"):
            store.put_device(device(name))
        assert [d.name for d in store.list_devices()] == ["a", "b", "c"]

    def test_touching_notes_the_time(self, store: Store) -> None:
        store.put_device(device())
        store.touch_device("id-pi4", NOW + 5)
        assert store.get_device("pi4").last_seen_unix_s == NOW + 5

    def test_unknown_devices_have_their_reasons(self, store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            store.touch_device("nobody", NOW)
        assert reason_of(raised) is Reason.AGENT_UNKNOWN
        with pytest.raises(TuneFleetError) as raised:
            store.get_device("nobody")
        assert reason_of(raised) is Reason.DEVICE_UNKNOWN


class TestCampaigns:
    def test_every_field_is_read_back(self, store: Store) -> None:
        full = campaign(
            ended_at_unix_s=NOW + 9,
            error_reason="INTERNAL",
            error_message="boom",
            activity="compiling",
            trials_wanted=640,
            tuning_s=3.5,
            tuning_since_unix_s=NOW + 1,
            groups=(
                GroupRecord(
                    TARGET,
                    "f",
                    "d" * 64,
                    "e" * 64,
                    {"tuned": (0.1,)},
                    1e-6,
                    "slow",
                    {"tuned": "e" * 64},
                ),
            ),
            onnx_digest="a" * 64,
            inputs_digest="b" * 64,
            outputs_digest="c" * 64,
            artifacts=(ArtifactRecord("report.json", "f" * 64, 12),),
            artifact_dir="/somewhere",
        )
        store.create_campaign(full, "")
        assert store.get_campaign("c-1") == full

    def test_the_same_key_gives_the_same_campaign(self, store: Store) -> None:
        store.create_campaign(campaign("c-1"), "key")
        assert store.create_campaign(campaign("c-2"), "key").campaign_id == "c-1"
        assert len(store.list_campaigns()) == 1

    def test_an_empty_key_gives_a_new_campaign_each_time(self, store: Store) -> None:
        store.create_campaign(campaign("c-1"), "")
        store.create_campaign(campaign("c-2"), "")
        assert len(store.list_campaigns()) == 2

    @pytest.mark.parametrize("reference", ["c-2026-aaaa", "c-2026-a", "resnet"])
    def test_a_campaign_is_found_by_id_beginning_and_name(
        self, store: Store, reference: str
    ) -> None:
        store.create_campaign(campaign("c-2026-aaaa", "resnet"), "")
        store.create_campaign(campaign("c-2026-bbbb", "vgg"), "")
        assert store.get_campaign(reference).campaign_id == "c-2026-aaaa"

    @pytest.mark.parametrize("reference", ["c-2026", "vgg", "", "%", "c_2026"])
    def test_ambiguous_and_unknown_references_are_refused(
        self, store: Store, reference: str
    ) -> None:
        store.create_campaign(campaign("c-2026-aaaa", "vgg"), "")
        store.create_campaign(campaign("c-2026-bbbb", "vgg"), "")
        with pytest.raises(TuneFleetError) as raised:
            store.get_campaign(reference)
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN

    def test_an_exact_id_wins_over_longer_ones(self, store: Store) -> None:
        store.create_campaign(campaign("c-1"), "")
        store.create_campaign(campaign("c-11"), "")
        assert store.get_campaign("c-1").campaign_id == "c-1"

    def test_listings_are_newest_first_and_by_state(self, store: Store) -> None:
        store.create_campaign(campaign("c-1", created_at_unix_s=NOW), "")
        store.create_campaign(campaign("c-2", created_at_unix_s=NOW + 1), "")
        store.create_campaign(
            campaign("c-3", created_at_unix_s=NOW + 2, state=CampaignState.DONE), ""
        )
        assert [c.campaign_id for c in store.list_campaigns()] == ["c-3", "c-2", "c-1"]
        tuning = store.list_campaigns([CampaignState.TUNING])
        assert [c.campaign_id for c in tuning] == ["c-2", "c-1"]

    def test_a_change_happens_in_an_expected_state_only(self, store: Store) -> None:
        store.create_campaign(campaign(), "")
        paused = store.update_campaign(
            "c-1", [CampaignState.TUNING], state=CampaignState.PAUSED, activity="resting"
        )
        assert paused == campaign(state=CampaignState.PAUSED, activity="resting")
        with pytest.raises(TuneFleetError, match="paused") as raised:
            store.update_campaign("c-1", [CampaignState.TUNING], activity="going on")
        assert reason_of(raised) is Reason.CAMPAIGN_STATE
        assert store.get_campaign("c-1") == paused

    def test_without_expected_states_any_will_do(self, store: Store) -> None:
        store.create_campaign(campaign(state=CampaignState.DONE), "")
        assert store.update_campaign("c-1", [], activity="x").activity == "x"

    def test_changing_an_unknown_campaign_is_refused(self, store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            store.update_campaign("c-9", [], activity="x")
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN

    def test_a_change_of_something_else_is_a_mistake(self, store: Store) -> None:
        store.create_campaign(campaign(), "")
        with pytest.raises(TypeError, match="colour"):
            store.update_campaign("c-1", [], colour="red")


class TestTasks:
    def test_tasks_keep_their_order_and_are_added_once(self, busy_store: Store) -> None:
        busy_store.add_tasks("c-1", [replace(task(OTHER_KEY), name="changed"), task()])
        names = [progress.task.name for progress in busy_store.task_progress("c-1")]
        assert names == ["conv2d", "dense"]

    def test_progress_counts_this_campaign_and_knows_the_best_of_all(
        self, busy_store: Store
    ) -> None:
        failed = trial(3, verdict=Verdict.CRASHED, samples_s=())
        baseline = trial(9, trace="[[], []]")
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(2), failed, baseline], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        busy_store.create_campaign(campaign("c-2"), "")
        busy_store.add_tasks("c-2", [task()])

        first = busy_store.task_progress("c-1")[0]
        assert (first.trials, first.measured, first.rounds) == (3, 2, 1)
        assert (first.best_s, first.best_candidate) == (2e-3, trial(2).candidate)
        assert first.baseline_s == 9e-3
        second = busy_store.task_progress("c-2")[0]
        assert (second.trials, second.measured, second.rounds) == (0, 0, 0)
        assert (second.best_s, second.baseline_s) == (2e-3, 9e-3)

    def test_rounds_leave_a_trail_of_the_best_latency(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(5)], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        for token, number in ((2, 7), (3, 4)):
            name = f"l-{token}"
            busy_store.grant_lease(lease(name, token))
            busy_store.ingest_trials("id-pi4", name, token, [trial(number, name)], NOW)
            busy_store.end_lease(name, token, LeaseState.DONE)
        assert busy_store.task_progress("c-1")[0].best_by_round_s == (5e-3, 5e-3, 4e-3)

    def test_a_round_without_any_latency_counts_but_leaves_no_trail(
        self, busy_store: Store
    ) -> None:
        busy_store.end_lease("l-1", 1, LeaseState.FAILED, "no candidate could be built")
        progress = busy_store.task_progress("c-1")[0]
        assert (progress.rounds, progress.best_by_round_s) == (1, ())

    def test_the_record_sets_of_two_targets_never_mix(self, busy_store: Store) -> None:
        other = TaskKey(KEY.workload, '{"kind":"llvm","mcpu":"haswell"}', KEY.fingerprint)
        busy_store.add_tasks("c-1", [task(other)])
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        assert busy_store.task_progress("c-1")[2].best_s is None
        assert busy_store.tried_candidates(other) == frozenset()
        assert busy_store.best_candidates(other, 5) == []

    def test_exhaustion_is_noted_for_one_task(self, busy_store: Store) -> None:
        busy_store.mark_exhausted("c-1", KEY)
        exhausted = [p.task.exhausted for p in busy_store.task_progress("c-1")]
        assert exhausted == [True, False]

    def test_unknown_campaigns_have_no_tasks(self, store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            store.task_progress("c-9")
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN
        with pytest.raises(TuneFleetError) as raised:
            store.add_tasks("c-9", [task()])
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN


class TestLeases:
    def test_a_granted_lease_is_the_devices_active_one(self, busy_store: Store) -> None:
        assert busy_store.active_lease("id-pi4") == lease()
        assert busy_store.active_lease("id-other") is None

    def test_a_device_holds_one_lease_at_a_time(self, busy_store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            busy_store.grant_lease(lease("l-2", 2, workload=OTHER_KEY.workload))
        assert reason_of(raised) is Reason.LEASE_LOST

    def test_a_round_is_leased_to_one_device_at_a_time(self, busy_store: Store) -> None:
        busy_store.put_device(device("twin"))
        with pytest.raises(TuneFleetError) as raised:
            busy_store.grant_lease(lease("l-2", 2, "id-twin"))
        assert reason_of(raised) is Reason.LEASE_LOST
        busy_store.grant_lease(lease("l-2", 2, "id-twin", workload=OTHER_KEY.workload))

    def test_a_lease_needs_a_known_device_and_campaign(self, busy_store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            busy_store.grant_lease(lease("l-2", 2, "id-nobody"))
        assert reason_of(raised) is Reason.DEVICE_UNKNOWN
        with pytest.raises(TuneFleetError) as raised:
            busy_store.grant_lease(lease("l-2", 2, campaign_id="c-9"))
        assert reason_of(raised) is Reason.CAMPAIGN_UNKNOWN

    def test_tokens_grow_and_never_repeat_between_threads(self, store: Store) -> None:
        with ThreadPoolExecutor(4) as threads:
            tokens = list(threads.map(lambda _: store.next_fencing_token(), range(40)))
        assert sorted(tokens) == list(range(1, 41))

    def test_tokens_go_on_after_reopening(self, store: Store, url: str) -> None:
        before = store.next_fencing_token()
        reopened = open_store(url)
        assert reopened.next_fencing_token() > before
        reopened.close()

    def test_renewing_prolongs_with_the_right_token_only(self, busy_store: Store) -> None:
        busy_store.renew_lease("l-1", 1, NOW + 120)
        assert busy_store.expire_leases(NOW + 119) == []
        with pytest.raises(TuneFleetError) as raised:
            busy_store.renew_lease("l-1", 2, NOW + 999)
        assert reason_of(raised) is Reason.LEASE_LOST
        assert len(busy_store.expire_leases(NOW + 120)) == 1

    def test_an_ended_lease_cannot_be_renewed(self, busy_store: Store) -> None:
        busy_store.expire_leases(NOW + 60)
        with pytest.raises(TuneFleetError) as raised:
            busy_store.renew_lease("l-1", 1, NOW + 999)
        assert reason_of(raised) is Reason.LEASE_LOST

    def test_ending_is_repeatable_and_frees_the_device(self, busy_store: Store) -> None:
        ended = busy_store.end_lease("l-1", 1, LeaseState.DONE, "", {"search": 1.5})
        assert ended == lease(state=LeaseState.DONE, phase_seconds={"search": 1.5})
        assert busy_store.end_lease("l-1", 1, LeaseState.DONE, "again") == ended
        assert busy_store.active_lease("id-pi4") is None
        busy_store.grant_lease(lease("l-2", 2))

    @pytest.mark.parametrize(
        ("lease_id", "token", "state"),
        [("l-1", 2, LeaseState.DONE), ("l-9", 1, LeaseState.DONE), ("l-1", 1, LeaseState.FAILED)],
        ids=["wrong token", "unknown lease", "ended otherwise"],
    )
    def test_an_end_that_contradicts_is_refused(
        self, busy_store: Store, lease_id: str, token: int, state: LeaseState
    ) -> None:
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        with pytest.raises(TuneFleetError) as raised:
            busy_store.end_lease(lease_id, token, state)
        assert reason_of(raised) is Reason.LEASE_LOST

    def test_only_what_is_due_expires_and_only_once(self, busy_store: Store) -> None:
        busy_store.put_device(device("twin"))
        later = lease("l-2", 2, "id-twin", workload=OTHER_KEY.workload, expires_at_unix_s=NOW + 90)
        busy_store.grant_lease(later)
        assert busy_store.expire_leases(NOW + 60) == [lease(state=LeaseState.EXPIRED)]
        assert busy_store.expire_leases(NOW + 60) == []
        assert busy_store.list_leases("c-1", [LeaseState.ACTIVE]) == [later]

    def test_cancelling_ends_one_campaigns_leases(self, busy_store: Store) -> None:
        busy_store.put_device(device("twin"))
        busy_store.create_campaign(campaign("c-2"), "")
        busy_store.grant_lease(lease("l-2", 2, "id-twin", campaign_id="c-2"))
        assert [c.lease_id for c in busy_store.cancel_leases("c-1")] == ["l-1"]
        assert [c.state for c in busy_store.list_leases()] == [
            LeaseState.CANCELLED,
            LeaseState.ACTIVE,
        ]


class TestTrials:
    def test_a_repeated_report_stores_nothing_twice(self, busy_store: Store) -> None:
        batch = [trial(1), trial(2), trial(1)]
        first = busy_store.ingest_trials("id-pi4", "l-1", 1, batch, NOW)
        assert (set(first.stored), first.new) == ({trial(1).trial_id, trial(2).trial_id}, 2)
        assert first.campaign_id == "c-1"
        again = busy_store.ingest_trials("id-pi4", "l-1", 1, [*batch, trial(3)], NOW + 1)
        assert (len(set(again.stored)), again.new, again.rejected) == (3, 1, {})
        assert busy_store.count_trials("c-1") == busy_store.count_trials() == 3
        assert busy_store.get_device("pi4").trials == 3
        assert busy_store.task_progress("c-1")[0].trials == 3

    @pytest.mark.parametrize("state", [LeaseState.DONE, LeaseState.FAILED])
    def test_late_trials_of_an_ended_lease_are_stored(
        self, busy_store: Store, state: LeaseState
    ) -> None:
        busy_store.end_lease("l-1", 1, state)
        assert busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW).new == 1

    def test_late_trials_of_an_expired_lease_are_stored(self, busy_store: Store) -> None:
        busy_store.expire_leases(NOW + 60)
        assert busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW).new == 1

    @pytest.mark.parametrize(
        ("device_id", "lease_id", "token"),
        [("id-pi4", "l-1", 2), ("id-pi4", "l-9", 1), ("id-other", "l-1", 1)],
        ids=["wrong token", "unknown lease", "another device's lease"],
    )
    def test_trials_without_a_right_to_report_are_rejected(
        self, busy_store: Store, device_id: str, lease_id: str, token: int
    ) -> None:
        outcome = busy_store.ingest_trials(device_id, lease_id, token, [trial(1)], NOW)
        assert (outcome.stored, outcome.new) == ((), 0)
        assert list(outcome.rejected) == [trial(1).trial_id]
        assert busy_store.count_trials() == 0

    def test_trials_of_a_benchmark_are_rejected(self, busy_store: Store) -> None:
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        busy_store.grant_lease(lease("l-2", 2, kind=LeaseKind.BENCHMARK, workload=""))
        outcome = busy_store.ingest_trials("id-pi4", "l-2", 2, [trial(1, "l-2")], NOW)
        assert (outcome.stored, len(outcome.rejected)) == ((), 1)

    def test_a_trial_that_names_another_lease_is_rejected_alone(self, busy_store: Store) -> None:
        strange = trial(2, lease_id="l-0")
        outcome = busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), strange], NOW)
        assert outcome.stored == (trial(1).trial_id,)
        assert list(outcome.rejected) == [strange.trial_id]

    def test_a_trial_cannot_take_the_name_of_another_leases_trial(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        busy_store.grant_lease(lease("l-2", 2))
        forged = trial(5, "l-2", trial_id=trial(1).trial_id)
        outcome = busy_store.ingest_trials("id-pi4", "l-2", 2, [forged], NOW)
        assert (outcome.stored, list(outcome.rejected)) == ((), [forged.trial_id])

    def test_lost_candidates_may_be_tried_again(self, busy_store: Store) -> None:
        lost = trial(2, verdict=Verdict.LOST, samples_s=())
        crashed = trial(3, verdict=Verdict.CRASHED, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), lost, crashed], NOW)
        expected = frozenset({trial(1).candidate, crashed.candidate})
        assert busy_store.tried_candidates(KEY) == expected

    def test_the_fastest_candidates_come_first_and_once(self, busy_store: Store) -> None:
        again = trial(4, trial_id="again", samples_s=(1e-4,))
        failed = trial(1, verdict=Verdict.CRASHED)
        busy_store.ingest_trials(
            "id-pi4", "l-1", 1, [trial(4), trial(3), again, failed, trial(9)], NOW
        )
        assert busy_store.best_candidates(KEY, 2) == [
            KnownCandidate(again.candidate, again.trace, 1e-4),
            KnownCandidate(trial(3).candidate, trial(3).trace, 3e-3),
        ]

    def test_a_slower_repetition_does_not_displace_the_best(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(2)], NOW)
        assert busy_store.task_progress("c-1")[0].best_s == 1e-3

    def test_the_baseline_is_known_by_its_trace(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(8, trace=BASELINE_TRACE)], NOW)
        assert busy_store.task_progress("c-1")[0].baseline_s == 8e-3

    def test_latency_points_come_in_the_order_of_arrival(self, busy_store: Store) -> None:
        failed = trial(1, verdict=Verdict.TIMEOUT, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(2)], NOW)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [failed], NOW + 1)
        points = busy_store.latency_points("c-1")
        assert [(p.key, p.received_at_unix_s, p.latency_s) for p in points] == [
            (KEY, NOW, 2e-3),
            (KEY, NOW + 1, None),
        ]
        assert [(p.predicted, p.model_version, p.verdict) for p in points] == [
            (-2.0, "v1", Verdict.OK),
            (-1.0, "v1", Verdict.TIMEOUT),
        ]


class TestTrainingRows:
    def test_rows_carry_features_latency_noise_and_hardware(self, busy_store: Store) -> None:
        without = trial(2, features=None)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), without], NOW)
        (row,) = busy_store.training_rows()
        sample = trial(1).features
        assert sample is not None
        assert (row.key, row.candidate, row.stores) == (KEY, trial(1).candidate, 2)
        assert row.features == sample.data
        assert (row.latency_s, row.verdict) == (1e-3, Verdict.OK)
        assert row.noise == pytest.approx(0.1)
        expected = hardware_vector(PROFILE, TARGET)
        assert row.hardware == pytest.approx(tuple(expected), nan_ok=True)

    def test_reading_goes_on_over_pages_in_a_stable_order(self, busy_store: Store) -> None:
        for start in range(1, 1200, 300):
            batch = [trial(n) for n in range(start, start + 300)]
            busy_store.ingest_trials("id-pi4", "l-1", 1, batch, NOW)
        latencies = [row.candidate for row in busy_store.training_rows()]
        assert latencies == [trial(n).candidate for n in range(1, 1201)]

    def test_a_half_read_iterator_keeps_no_lock(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1), trial(2)], NOW)
        rows = busy_store.training_rows()
        next(rows)
        busy_store.touch_device("id-pi4", NOW + 1)
        assert next(rows).candidate == trial(2).candidate

    def test_an_unmeasured_profile_does_not_displace_a_measured_one(
        self, busy_store: Store
    ) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.put_device(device(profile=UNMEASURED))
        (row,) = busy_store.training_rows()
        assert row.hardware[HARDWARE_FEATURES.index("gflops_single_core")] == 50.0

    def test_rows_keep_the_hardware_they_were_measured_on(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.put_device(device(profile=replace(PROFILE, logical_cores=64)))
        (row,) = busy_store.training_rows()
        assert row.hardware[HARDWARE_FEATURES.index("logical_cores")] == 2


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


class TestModels:
    def test_the_newest_promoted_version_is_the_current_one(self, store: Store) -> None:
        assert store.current_model() is None
        for version, promoted in (("v1", True), ("v2", True), ("v3", False)):
            store.add_model_version(model(version, promoted))
        current = store.current_model()
        assert current is not None
        assert current.version == "v2"
        assert [m.version for m in store.list_model_versions()] == ["v3", "v2", "v1"]

    def test_a_version_is_read_back_with_missing_metrics(self, store: Store) -> None:
        store.add_model_version(model("v1"))
        read = store.get_model_version("v1")
        assert replace(read, metrics={}) == replace(model("v1"), metrics={})
        assert read.metrics["pca"] == 0.8
        assert math.isnan(read.metrics["top_1"])

    def test_an_unknown_version_is_refused(self, store: Store) -> None:
        with pytest.raises(TuneFleetError) as raised:
            store.get_model_version("v9")
        assert reason_of(raised) is Reason.MODEL_VERSION_UNKNOWN


class TestDurability:
    def test_everything_is_there_after_reopening(self, busy_store: Store, url: str) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.close()
        reopened = open_store(url)
        assert reopened.active_lease("id-pi4") == lease()
        assert reopened.count_trials("c-1") == 1
        assert reopened.task_progress("c-1")[0].best_s == 1e-3
        reopened.close()

    def test_two_threads_that_report_the_same_trials_store_each_once(
        self, busy_store: Store
    ) -> None:
        numbers = range(1, 41)
        gate = threading.Barrier(2)

        def report(order: int) -> int:
            gate.wait()
            return sum(
                busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(n)], NOW).new
                for n in list(numbers)[::order]
            )

        with ThreadPoolExecutor(2) as threads:
            stored = list(threads.map(report, (1, -1)))
        assert sum(stored) == busy_store.count_trials() == len(numbers)
        assert busy_store.get_device("pi4").trials == len(numbers)

    def test_two_stores_on_one_database_take_turns(self, busy_store: Store, url: str) -> None:
        other = open_store(url)
        with ThreadPoolExecutor(2) as threads:
            tokens = list(
                threads.map(lambda n: (busy_store, other)[n % 2].next_fencing_token(), range(40))
            )
        other.close()
        assert len(set(tokens)) == 40
