"""Leases and trials under any order of grants, reports, losses, restarts and lapses of time.

Time is an argument of the store, so days pass in no time here. Of two agents one may be slow, cut
off or confused: it reports late, twice, out of order, with an old token or in another's name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from store_samples import KEY, NOW, OTHER_KEY, campaign, device, lease, task, trial

from coordinator.state.records import LeaseState, TaskKey
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Trial

TTL_S = 60.0
DEVICES = ("id-one", "id-two")
KEYS = (KEY, OTHER_KEY)


@dataclass
class Held:
    """A lease as its agent and we know it."""

    lease_id: str
    token: int
    device_id: str
    key: TaskKey
    expires_at: float
    state: LeaseState = LeaseState.ACTIVE
    outbox: list[Trial] = field(default_factory=list)
    """All that was measured under it: an agent forgets nothing that was not acknowledged."""
    acknowledged: set[str] = field(default_factory=set)


class Fleet(RuleBasedStateMachine):
    """What may happen, and what must hold whatever happened."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="tunefleet-machine-"))
        self.store: Store = open_store(self.url)
        self.now = NOW
        self.tokens: list[int] = []
        self.leases: list[Held] = []
        self.measured = 0

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'store.db'}"

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @initialize()
    def campaign_begins(self) -> None:
        for device_id in DEVICES:
            self.store.put_device(device(device_id.removeprefix("id-")))
        self.store.create_campaign(campaign(), "")
        self.store.add_tasks("c-1", [task(KEY), task(OTHER_KEY, "dense")])

    @rule(device_id=st.sampled_from(DEVICES), key=st.sampled_from(KEYS))
    def grant(self, device_id: str, key: TaskKey) -> None:
        token = self.store.next_fencing_token()
        assert token > max(self.tokens, default=0)
        self.tokens.append(token)
        made = Held(f"l-{token}", token, device_id, key, self.now + TTL_S)
        record = lease(
            made.lease_id,
            token,
            device_id,
            workload=key.workload,
            expires_at_unix_s=made.expires_at,
            granted_at_unix_s=self.now,
        )
        taken = [h for h in self.active() if h.device_id == device_id or h.key == key]
        if taken:
            with pytest.raises(TuneFleetError) as raised:
                self.store.grant_lease(record)
            assert raised.value.reason is Reason.LEASE_LOST
        else:
            self.store.grant_lease(record)
            self.leases.append(made)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), trials=st.integers(1, 3))
    def measure(self, data: st.DataObject, trials: int) -> None:
        """Measure under any lease ever held: an agent that was cut off does not know better."""
        held = data.draw(st.sampled_from(self.leases))
        for _ in range(trials):
            self.measured += 1
            held.outbox.append(trial(self.measured, held.lease_id))

    @precondition(lambda self: any(held.outbox for held in self.leases))
    @rule(data=st.data())
    def report(self, data: st.DataObject) -> None:
        """Report some of it, in any order, some of it twice or again."""
        held = data.draw(st.sampled_from([held for held in self.leases if held.outbox]))
        some = data.draw(st.lists(st.sampled_from(held.outbox), min_size=1, max_size=6))
        names = {t.trial_id for t in some}
        outcome = self.store.ingest_trials(
            held.device_id, held.lease_id, held.token, some, self.now
        )
        assert set(outcome.stored) == names
        assert not outcome.rejected
        assert outcome.new == len(names - held.acknowledged)
        held.acknowledged |= names

    @precondition(lambda self: any(held.outbox for held in self.leases))
    @rule(data=st.data(), undone=st.booleans())
    def report_together(self, data: st.DataObject, undone: bool) -> None:
        """Report for several leases at once; in a group that is undone, none of it has happened."""
        with_trials = [held for held in self.leases if held.outbox]
        reports, expected = [], []
        before = {held.lease_id: set(held.acknowledged) for held in with_trials}
        for held in data.draw(st.lists(st.sampled_from(with_trials), min_size=1, max_size=4)):
            some = data.draw(st.lists(st.sampled_from(held.outbox), min_size=1, max_size=4))
            names = {t.trial_id for t in some}
            expected.append((names, len(names - held.acknowledged)))
            held.acknowledged |= names
            reports.append(
                self.store.prepare_report(held.device_id, held.lease_id, held.token, some)
            )
        with suppress(ZeroDivisionError), self.store.group():
            outcomes = self.store.ingest_reports(reports, self.now)
            assert [(set(o.stored), o.new) for o in outcomes] == expected
            if undone:
                raise ZeroDivisionError
        if undone:
            for held in with_trials:
                held.acknowledged = before[held.lease_id]

    @precondition(lambda self: any(held.outbox for held in self.leases))
    @rule(data=st.data(), forged=st.sampled_from(["token", "device", "lease"]))
    def report_what_is_not_theirs(self, data: st.DataObject, forged: str) -> None:
        held = data.draw(st.sampled_from([held for held in self.leases if held.outbox]))
        other = next(d for d in DEVICES if d != held.device_id)
        outcome = self.store.ingest_trials(
            other if forged == "device" else held.device_id,
            "l-0" if forged == "lease" else held.lease_id,
            held.token + 1 if forged == "token" else held.token,
            held.outbox,
            self.now,
        )
        assert (outcome.stored, outcome.new) == ((), 0)
        assert outcome.rejected.keys() == {t.trial_id for t in held.outbox}

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.leases))
        until = self.now + TTL_S
        if held.state is LeaseState.ACTIVE:
            self.store.renew_lease(held.lease_id, held.token, until)
            held.expires_at = until
        else:
            with pytest.raises(TuneFleetError) as raised:
                self.store.renew_lease(held.lease_id, held.token, until)
            assert raised.value.reason is Reason.LEASE_LOST

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), state=st.sampled_from([LeaseState.DONE, LeaseState.RETURNED]))
    def end(self, data: st.DataObject, state: LeaseState) -> None:
        """End one, perhaps for the second time, since no answer came to the first."""
        held = data.draw(st.sampled_from(self.leases))
        if held.state in {LeaseState.ACTIVE, state}:
            self.store.end_lease(held.lease_id, held.token, state)
            held.state = state
        else:
            with pytest.raises(TuneFleetError) as raised:
                self.store.end_lease(held.lease_id, held.token, state)
            assert raised.value.reason is Reason.LEASE_LOST

    @rule(seconds=st.sampled_from([1.0, 59.0, 61.0, 2 * 86400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        ended = {record.lease_id for record in self.store.expire_leases(self.now)}
        due = [held for held in self.active() if held.expires_at <= self.now]
        assert ended == {held.lease_id for held in due}
        for held in due:
            held.state = LeaseState.EXPIRED

    @rule()
    def coordinator_restarts(self) -> None:
        self.store.close()
        self.store = open_store(self.url)

    def active(self) -> list[Held]:
        return [held for held in self.leases if held.state is LeaseState.ACTIVE]

    @invariant()
    def leases_are_as_their_agents_left_them(self) -> None:
        known = {record.lease_id: record for record in self.store.list_leases("c-1")}
        assert known.keys() == {held.lease_id for held in self.leases}
        for held in self.leases:
            assert known[held.lease_id].state is held.state

    @invariant()
    def nobody_works_on_two_things_nor_two_on_one(self) -> None:
        held = self.store.list_leases(states=[LeaseState.ACTIVE])
        assert all(n == 1 for n in Counter(record.device_id for record in held).values())
        assert all(n == 1 for n in Counter(record.workload for record in held).values())

    @invariant()
    def what_was_acknowledged_is_there_once(self) -> None:
        wanted = Counter(
            (held.key.workload, t.latency_s)
            for held in self.leases
            for t in held.outbox
            if t.trial_id in held.acknowledged
        )
        points = self.store.latency_points("c-1")
        assert Counter((point.key.workload, point.latency_s) for point in points) == wanted
        progress = self.store.task_progress("c-1")
        assert sum(task.trials for task in progress) == wanted.total()
        assert sum(known.trials for known in self.store.list_devices()) == wanted.total()
        tried = sum(len(self.store.tried_candidates(key)) for key in KEYS)
        assert tried == wanted.total(), "each has a candidate of its own"


class TestFleet(Fleet.TestCase):  # type: ignore[misc]
    """Each step waits for the disk a few times."""

    settings = settings(
        max_examples=12,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
