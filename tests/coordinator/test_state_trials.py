"""What every Store must do with trials, their features and the models trained on them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from store_samples import (
    KEY,
    NOW,
    OTHER_KEY,
    PROFILE,
    TARGET,
    UNMEASURED,
    device,
    lease,
    model,
    reason_of,
    task,
    trial,
)

from coordinator.state.records import (
    KnownTask,
    LeaseKind,
    LeaseState,
)
from coordinator.state.store import Store
from coordinator.state.trial_records import KnownCandidate
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.leases import BASELINE_TRACE
from tunefleet.trials import Verdict


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

    def test_candidates_that_were_lost_twice_are_not_tried_again(self, busy_store: Store) -> None:
        first = trial(2, verdict=Verdict.LOST, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-1", 1, [first], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        assert busy_store.tried_candidates(KEY) == frozenset()
        busy_store.grant_lease(lease("l-2", 2))
        second = trial(2, "l-2", verdict=Verdict.LOST, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-2", 2, [second], NOW)
        assert busy_store.tried_candidates(KEY) == {first.candidate}

    def test_the_fastest_candidates_come_first_and_once(self, busy_store: Store) -> None:
        again = trial(4, trial_id="again", samples_s=(1e-4,))
        failed = trial(1, verdict=Verdict.CRASHED)
        busy_store.ingest_trials(
            "id-pi4", "l-1", 1, [trial(4), trial(3), again, failed, trial(9)], NOW
        )
        assert busy_store.best_candidates(KEY, 2) == [
            KnownCandidate(again.candidate, again.trace, pytest.approx(2.05e-3)),
            KnownCandidate(trial(3).candidate, trial(3).trace, 3e-3),
        ]

    def test_what_was_measured_again_counts_with_its_median(self, busy_store: Store) -> None:
        first = [trial(n, samples_s=(n / 1000,)) for n in (10, 11, 12, 20)]
        busy_store.ingest_trials("id-pi4", "l-1", 1, first, NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        for token, again in ((2, (14, 11)), (3, (15, 11))):
            name = f"l-{token}"
            busy_store.grant_lease(lease(name, token, kind=LeaseKind.REPLAY))
            batch = [
                trial(n, name, samples_s=(s / 1000,)) for n, s in zip((10, 11), again, strict=True)
            ]
            busy_store.ingest_trials("id-pi4", name, token, batch, NOW)
            busy_store.end_lease(name, token, LeaseState.DONE)
        found = [(k.candidate, k.latency_s) for k in busy_store.best_candidates(KEY, 3)]
        # The twelfth was measured once, which is not trusted as far.
        expected = [(11, 11e-3), (12, 12e-3), (10, 14e-3)]
        assert found == [(trial(n).candidate, latency_s) for n, latency_s in expected]
        known = busy_store.task_progress("c-1")[0]
        assert (known.best_candidate, known.best_s) == (trial(11).candidate, 11e-3)
        assert known.final_s == 11e-3

    def test_luck_alone_does_not_beat_what_was_measured_again(self, busy_store: Store) -> None:
        twice = [trial(10, trial_id=name, samples_s=(1e-2,)) for name in ("one", "two")]
        busy_store.ingest_trials("id-pi4", "l-1", 1, [*twice, trial(9)], NOW)
        assert busy_store.task_progress("c-1")[0].best_s == 1e-2
        assert busy_store.best_candidates(KEY, 1)[0].candidate == trial(10).candidate
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(8)], NOW)
        assert busy_store.task_progress("c-1")[0].best_s == 8e-3
        assert busy_store.best_candidates(KEY, 1)[0].candidate == trial(8).candidate

    def test_a_task_is_known_once_it_has_a_latency(self, busy_store: Store) -> None:
        assert busy_store.known_tasks() == []
        failed = trial(2, verdict=Verdict.CRASHED, samples_s=())
        busy_store.ingest_trials("id-pi4", "l-1", 1, [failed], NOW)
        assert busy_store.known_tasks() == []
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        assert busy_store.known_tasks() == [KnownTask(KEY, task().name, task().flops)]

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


class TestPredictions:
    def test_the_last_scores_of_some_versions_come_with_what_was_measured(
        self, busy_store: Store
    ) -> None:
        report = [
            trial(1, model_version="v1"),
            trial(2, model_version="v2"),
            trial(3, model_version="other"),
            trial(4, predicted=None),
            trial(5, verdict=Verdict.CRASHED, samples_s=()),
            trial(6, model_version="v1"),
        ]
        busy_store.ingest_trials("id-pi4", "l-1", 1, report, NOW)
        found = busy_store.last_predictions(KEY, ["v1", "v2"], 8)
        assert [(p.model_version, p.predicted, p.latency_s) for p in found] == [
            ("v1", -6.0, 6e-3),
            ("v2", -2.0, 2e-3),
            ("v1", -1.0, 1e-3),
        ]
        assert busy_store.last_predictions(KEY, ["v1", "v2"], 2) == found[:2]
        assert busy_store.last_predictions(KEY, [], 8) == []
        assert busy_store.last_predictions(OTHER_KEY, ["v1"], 8) == []


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
        store.add_model_version(model("v1"))
        for call in (
            lambda: store.get_model_version("v9"),
            lambda: store.promote_model("v9", "why not"),
            lambda: store.roll_back_model("v9", "why not"),
        ):
            with pytest.raises(TuneFleetError) as raised:
                call()
            assert reason_of(raised) is Reason.MODEL_VERSION_UNKNOWN

    def test_an_older_version_can_be_promoted_later(self, store: Store) -> None:
        for version, promoted in (("v1", True), ("v2", False), ("v3", True)):
            store.add_model_version(model(version, promoted))
        made = store.promote_model("v2", "better here", metrics={"pca": 0.9, "pairs": 60.0})
        assert (made.promoted, made.why) == (True, "better here")
        assert (made.metrics["pca"], made.metrics["pairs"]) == (0.9, 60.0)
        assert math.isnan(made.metrics["top_1"])
        current = store.current_model()
        assert current is not None
        assert current.version == "v2"
        assert store.get_model_version("v2").why == "better here"

    def test_promoting_the_current_version_changes_nothing(self, store: Store) -> None:
        store.add_model_version(model("v1"))
        assert store.promote_model("v1", "once more", instead_of="v0").why == "first"
        assert store.get_model_version("v1").why == "first"

    def test_a_version_judged_against_another_than_the_current_one_is_refused(
        self, store: Store
    ) -> None:
        store.add_model_version(model("v1"), instead_of="")
        store.add_model_version(model("v2", promoted=False), instead_of="v0")
        for call in (
            lambda: store.promote_model("v2", "better", instead_of=""),
            lambda: store.add_model_version(model("v3"), instead_of="v2"),
        ):
            with pytest.raises(TuneFleetError, match="v1 is the current version") as raised:
                call()
            assert reason_of(raised) is Reason.MODEL_VERSION_STATE
        assert [m.version for m in store.list_model_versions()] == ["v2", "v1"]
        assert store.promote_model("v2", "better", instead_of="v1").promoted

    def test_rolling_back_leads_to_the_version_that_was_current_before(self, store: Store) -> None:
        for version, promoted in (("v1", True), ("v2", True), ("v3", False), ("v4", True)):
            store.add_model_version(model(version, promoted))
        assert store.roll_back_model("v4", "slow").version == "v2"
        assert store.roll_back_model("v2", "slow too").version == "v1"
        current = store.current_model()
        assert current is not None
        assert current.version == "v1"
        rolled_back = store.get_model_version("v4")
        assert (rolled_back.promoted, rolled_back.rolled_back) == (False, True)
        assert rolled_back.why == "slow"

    def test_rolling_back_again_goes_no_further(self, store: Store) -> None:
        for version in ("v1", "v2", "v3"):
            store.add_model_version(model(version))
        for _ in range(2):
            assert store.roll_back_model("v3", "slow").version == "v2"

    def test_a_version_that_was_rolled_back_can_be_promoted_again(self, store: Store) -> None:
        for version in ("v1", "v2"):
            store.add_model_version(model(version))
        store.roll_back_model("v2", "slow")
        again = store.promote_model("v2", "not so slow")
        assert (again.promoted, again.rolled_back) == (True, False)
        assert store.roll_back_model("v2", "slow after all").version == "v1"

    def test_there_must_be_something_to_go_back_to(self, store: Store) -> None:
        for version, promoted in (("v1", False), ("v2", True)):
            store.add_model_version(model(version, promoted))
        for version, why in (("v2", "only promoted one"), ("v1", "agents rank with v2")):
            with pytest.raises(TuneFleetError, match=why) as raised:
                store.roll_back_model(version, "slow")
            assert reason_of(raised) is Reason.MODEL_VERSION_STATE
        assert store.current_model() == store.get_model_version("v2")
