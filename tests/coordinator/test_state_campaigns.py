"""What every Store must do with campaigns and their tasks, whatever its database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_samples import (
    KEY,
    NOW,
    OTHER_KEY,
    TARGET,
    campaign,
    lease,
    reason_of,
    task,
    trial,
)

from coordinator.state.records import (
    ArtifactRecord,
    CampaignState,
    GroupRecord,
    LeaseState,
    TaskKey,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Verdict


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

    def test_rounds_leave_a_trail_of_the_trials_made(self, busy_store: Store) -> None:
        failed = [trial(n, verdict=Verdict.CRASHED, samples_s=()) for n in (1, 2)]
        made = [failed, [], [trial(5, "l-3"), trial(6, "l-3")], [trial(4, "l-4")]]
        for token, batch in enumerate(made, 1):
            if token > 1:
                busy_store.grant_lease(lease(f"l-{token}", token))
            busy_store.ingest_trials("id-pi4", f"l-{token}", token, batch, NOW)
            busy_store.end_lease(f"l-{token}", token, LeaseState.DONE)
        progress = busy_store.task_progress("c-1")[0]
        assert progress.best_by_round_s == (5e-3, 4e-3)
        assert progress.trials_by_round == (4, 5), "those before any latency count too"

    def test_a_late_trial_counts_for_the_round_that_made_it(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(5)], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.DONE)
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(5), trial(6)], NOW)
        assert busy_store.task_progress("c-1")[0].trials_by_round == (2,)

    def test_what_a_trial_takes_is_told_by_the_least_disturbed_round(
        self, busy_store: Store
    ) -> None:
        assert busy_store.task_progress("c-1")[0].trial_s is None
        for token, seconds in enumerate((9.0, 3.0, 6.0), 1):
            if token > 1:
                busy_store.grant_lease(lease(f"l-{token}", token))
            batch = [trial(2 * token, f"l-{token}"), trial(2 * token + 1, f"l-{token}")]
            busy_store.ingest_trials("id-pi4", f"l-{token}", token, batch, NOW)
            phases = {"fetch": 0.5, "search": 0.5, "search_rank": 0.25, "measure": seconds - 1}
            busy_store.end_lease(
                f"l-{token}", token, LeaseState.DONE, phase_seconds=phases | {"build": 99.0}
            )
        assert busy_store.task_progress("c-1")[0].trial_s == 1.5

    def test_a_round_without_any_latency_counts_but_leaves_no_trail(
        self, busy_store: Store
    ) -> None:
        busy_store.end_lease("l-1", 1, LeaseState.FAILED, "no candidate could be built")
        progress = busy_store.task_progress("c-1")[0]
        assert (progress.rounds, progress.best_by_round_s) == (1, ())

    def test_rounds_that_agents_lose_or_give_back_count_by_the_ten(self, busy_store: Store) -> None:
        def lose(token: int) -> None:
            if token > 1:
                busy_store.grant_lease(lease(f"l-{token}", token))
            if token % 2:
                busy_store.end_lease(f"l-{token}", token, LeaseState.RETURNED, "disk full")
            else:
                busy_store.expire_leases(NOW + 3600)

        for token in range(1, 10):
            lose(token)
        assert busy_store.task_progress("c-1")[0].rounds == 0
        lose(10)
        assert busy_store.task_progress("c-1")[0].rounds == 1

    def test_a_round_that_is_given_back_with_trials_counts(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(5)], NOW)
        busy_store.end_lease("l-1", 1, LeaseState.RETURNED)
        assert busy_store.task_progress("c-1")[0].rounds == 1

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
