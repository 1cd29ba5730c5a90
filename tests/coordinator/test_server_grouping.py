from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

import pytest
from store_samples import KEY, NOW, OTHER_KEY, device, lease, reason_of, trial

from coordinator.server.agents.heartbeats import Heartbeats
from coordinator.server.grouping import GroupedCalls
from coordinator.state.records import LeaseState
from coordinator.state.store import IngestOutcome, PreparedReport, Store
from tunefleet.errors import Reason, TuneFleetError


def report(store: Store, *numbers: int) -> PreparedReport:
    return store.prepare_report("id-pi4", "l-1", 1, [trial(n) for n in numbers])


def ingest(calls: GroupedCalls, prepared: PreparedReport) -> Awaitable[IngestOutcome]:
    return calls.ingest(lambda: prepared, len(prepared.trials), NOW)


async def test_reports_that_come_together_are_each_answered(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)
    reports = [report(busy_store, 2 * n + 1, 2 * n + 2) for n in range(40)]
    outcomes = await asyncio.gather(*(ingest(calls, each) for each in reports))
    assert [outcome.stored for outcome in outcomes] == [
        tuple(t.trial_id for t in each.trials) for each in reports
    ]
    assert busy_store.count_trials("c-1") == 80


async def test_a_trial_that_two_reports_of_a_group_bring_is_stored_once(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)
    outcomes = await asyncio.gather(*(ingest(calls, report(busy_store, 1, n)) for n in (2, 3, 4)))
    assert all(trial(1).trial_id in outcome.stored for outcome in outcomes)
    assert sum(outcome.new for outcome in outcomes) == busy_store.count_trials() == 4
    assert busy_store.task_progress("c-1")[0].trials == 4


async def test_a_report_that_cannot_be_stored_spoils_no_other(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)
    bad = busy_store.prepare_report("id-pi4", "l-1", 1, [trial(9, candidate="\ud800")])
    results = await asyncio.gather(
        ingest(calls, report(busy_store, 1)),
        ingest(calls, bad),
        calls.run(partial(busy_store.end_lease, "l-1", 1, LeaseState.DONE)),
        ingest(calls, report(busy_store, 2)),
        return_exceptions=True,
    )
    assert [isinstance(result, Exception) for result in results] == [False, True, False, False]
    assert busy_store.tried_candidates(KEY) == {trial(1).candidate, trial(2).candidate}
    assert busy_store.list_leases()[0].state is LeaseState.DONE


async def test_a_report_that_cannot_be_read_spoils_no_other(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)

    def unreadable() -> PreparedReport:
        raise ValueError("what is this?")

    results = await asyncio.gather(
        calls.ingest(unreadable, 1, NOW),
        ingest(calls, report(busy_store, 1)),
        calls.run(partial(busy_store.end_lease, "l-1", 1, LeaseState.DONE)),
        return_exceptions=True,
    )
    assert [isinstance(result, ValueError) for result in results] == [True, False, False]
    assert busy_store.tried_candidates(KEY) == {trial(1).candidate}


async def test_whoever_waits_for_a_group_that_breaks_is_told(
    busy_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = GroupedCalls(busy_store)

    def breaks(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as patched:
        patched.setattr(calls, "_group", breaks)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            await calls.run(lambda: None)
    assert await calls.run(lambda: 1) == 1


async def test_a_refused_call_is_told_why_and_others_go_on(busy_store: Store) -> None:
    busy_store.put_device(device("pi5"))
    calls = GroupedCalls(busy_store)
    granted, refused = await asyncio.gather(
        calls.run(
            partial(busy_store.grant_lease, lease("l-3", 3, "id-pi5", workload=OTHER_KEY.workload))
        ),
        calls.run(partial(busy_store.grant_lease, lease("l-2", 2, "id-pi5"))),
        return_exceptions=True,
    )
    assert granted is None
    assert isinstance(refused, TuneFleetError)
    assert refused.reason is Reason.LEASE_LOST


async def test_many_slow_calls_are_all_answered_in_their_order(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)
    answered: list[int] = []

    def slow(number: int) -> int:
        for _ in range(20):
            busy_store.touch_device("id-pi4", NOW + number)
        answered.append(number)
        return number

    assert await asyncio.gather(*(calls.run(partial(slow, n)) for n in range(30))) == [*range(30)]
    assert answered == [*range(30)]


async def test_a_caller_that_leaves_does_not_keep_others_waiting(busy_store: Store) -> None:
    calls = GroupedCalls(busy_store)
    leaving = asyncio.ensure_future(calls.run(lambda: busy_store.touch_device("id-pi4", NOW + 1)))
    staying = asyncio.ensure_future(calls.run(lambda: busy_store.touch_device("id-pi4", NOW + 2)))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert busy_store.get_device("id-pi4").last_seen_unix_s == NOW + 2


async def test_heartbeats_say_which_lease_is_held(busy_store: Store) -> None:
    busy_store.put_device(device("pi5"))
    heartbeats = Heartbeats(busy_store, GroupedCalls(busy_store), lambda: NOW + 7, gathered_s=0.0)
    held = await asyncio.gather(heartbeats.note("id-pi4"), heartbeats.note("id-pi5"))
    assert held == ["l-1", ""]
    assert {d.last_seen_unix_s for d in busy_store.list_devices()} == {NOW + 7}


async def test_a_heartbeat_of_a_stranger_is_refused(busy_store: Store) -> None:
    heartbeats = Heartbeats(busy_store, GroupedCalls(busy_store), lambda: NOW, gathered_s=0.0)
    known = asyncio.ensure_future(heartbeats.note("id-pi4"))
    with pytest.raises(TuneFleetError) as raised:
        await heartbeats.note("id-nobody")
    assert reason_of(raised) is Reason.AGENT_UNKNOWN
    assert await known == "l-1"
