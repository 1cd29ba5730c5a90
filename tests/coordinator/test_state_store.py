"""What every Store must do with devices and leases, and that it lasts, whatever its database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from store_samples import (
    NOW,
    OTHER_KEY,
    UNMEASURED,
    campaign,
    device,
    lease,
    reason_of,
    trial,
)

from coordinator.state.records import (
    LeaseState,
)
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError


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
