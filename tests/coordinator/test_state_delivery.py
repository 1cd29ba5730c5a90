"""Whatever order leases end and reports arrive in, no trial is lost and none is stored twice."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from store_samples import KEY, NOW, campaign, device, lease, task, trial

from coordinator.state.records import LeaseState
from coordinator.state.sql import open_store
from tunefleet.errors import TuneFleetError


class Delivery(RuleBasedStateMachine):
    """Two devices lease rounds, report in any order, again and late; the coordinator restarts."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{Path(self.folder.name) / 'store.db'}"
        self.store = open_store(self.url)
        for name in ("a", "b"):
            self.store.put_device(device(name))
        self.store.create_campaign(campaign(), "")
        self.store.add_tasks("c-1", [task()])
        self.now = NOW
        self.acknowledged: set[str] = set()
        self.candidates: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @rule(target=leases, name=st.sampled_from(["id-a", "id-b"]))
    def acquire(self, name: str) -> tuple[str, int, str]:
        token = self.store.next_fencing_token()
        granted = lease(f"l-{token}", token, name, expires_at_unix_s=self.now + 60)
        free = not self.store.list_leases(states=[LeaseState.ACTIVE])
        refused = True
        with suppress(TuneFleetError):
            self.store.grant_lease(granted)
            refused = False
        assert refused is not free
        return granted.lease_id, token, name

    @rule(
        held=leases,
        numbers=st.lists(st.integers(1, 6), min_size=1, max_size=4),
        wrong_token=st.booleans(),
    )
    def report(self, held: tuple[str, int, str], numbers: list[int], wrong_token: bool) -> None:
        lease_id, token, device_id = held
        batch = [trial(n, lease_id) for n in numbers]
        known = {granted.lease_id for granted in self.store.list_leases()}
        outcome = self.store.ingest_trials(
            device_id, lease_id, token + wrong_token, batch, self.now
        )
        names = {t.trial_id for t in batch}
        if wrong_token or lease_id not in known:
            assert set(outcome.rejected) == names
            return
        assert set(outcome.stored) == names
        assert outcome.new == len(names - self.acknowledged)
        self.acknowledged |= names
        self.candidates |= {t.candidate for t in batch}

    @rule(held=leases, state=st.sampled_from([LeaseState.DONE, LeaseState.RETURNED]))
    def end(self, held: tuple[str, int, str], state: LeaseState) -> None:
        lease_id, token, _ = held
        with suppress(TuneFleetError):
            assert self.store.end_lease(lease_id, token, state).state is state

    @rule(seconds=st.sampled_from([10.0, 70.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for expired in self.store.expire_leases(self.now):
            assert expired.expires_at_unix_s <= self.now

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.url)

    @invariant()
    def every_acknowledged_trial_is_stored_once(self) -> None:
        count = len(self.acknowledged)
        assert self.store.count_trials() == self.store.count_trials("c-1") == count
        assert self.store.task_progress("c-1")[0].trials == count
        assert sum(d.trials for d in self.store.list_devices()) == count
        assert self.store.tried_candidates(KEY) == self.candidates


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
