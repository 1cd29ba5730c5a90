"""What every Store must do with devices, campaigns, tasks and leases, whatever its database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store_samples import (
    KEY,
    NOW,
    OTHER_KEY,
    TARGET,
    UNMEASURED,
    campaign,
    device,
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
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Verdict


class TestDevices:
    def test_a_device_is_read_back_by_id_and_by_name(self, store: Store) -> None:
        store.put_device(device())
        assert store.get_device("id-pi4") == device()
        assert store.get_device("pi4") == device()

    def test_a_second_put_replaces_all_but_the_trials(self, busy_store: Store) -> None:
        busy_store.ingest_trials("id-pi4", "l-1", 1, [trial(1)], NOW)
        busy_store.put_device(device(agent_version="0.2.0"))
        assert busy_store.get_device("pi4") == device(agent_version="0.2.0", trials=1)

    def test_who_announces_itself_before_it_has_measured_stays_what_it_was(
        self, store: Store
    ) -> None:
        store.put_device(device())
        # Sent before, come late; or sent by an agent that starts again.
        store.put_device(device(profile=UNMEASURED, target="{}", agent_version="0.2.0"))
        assert store.get_device("pi4") == device(agent_version="0.2.0")

    def test_other_hardware_is_not_ready_before_it_has_measured_itself(self, store: Store) -> None:
        store.put_device(device())
        other = device(profile=replace(UNMEASURED, logical_cores=64))
        store.put_device(other)
        assert store.get_device("pi4") == other

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

    def test_a_drained_device_stays_so_when_it_registers_again(self, store: Store) -> None:
        store.put_device(device())
        store.set_draining("id-pi4", draining=True)
        store.put_device(device(agent_version="0.2.0"))
        assert store.get_device("pi4").draining
        store.set_draining("id-pi4", draining=False)
        assert not store.get_device("pi4").draining
        with pytest.raises(TuneFleetError) as raised:
            store.set_draining("nobody", draining=True)
        assert raised.value.reason is Reason.DEVICE_UNKNOWN

    def test_what_an_agent_speaks_is_kept(self, store: Store) -> None:
        told = device(protocol=2, feature_schema="ab", capabilities=("round", "replay"))
        store.put_device(told)
        assert store.get_device("pi4") == told

    def test_switches_are_off_until_somebody_turns_them_on(self, store: Store) -> None:
        assert not store.is_on("draining")
        for on in (True, True, False):
            store.set_switch("draining", on=on)
            assert store.is_on("draining") is on

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
