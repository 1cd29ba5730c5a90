"""Leases are taken, kept, completed, lost and given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_memory_coordinator import InMemoryCoordinator
from processes import eventually
from session_rig import DONE, Rig, make_lease, open_rig

from agent.outbox import LEAST_FREE_BYTES
from agent.session import delivery
from agent.session.coordinator import WorkResult
from tunefleet.leases import Lease
from tunefleet.v1 import lease_pb2
from tunefleet.v1.agent_service_pb2 import HINT_LEASE_CHANGED, HINT_WORK_AVAILABLE


@pytest.fixture
async def server() -> AsyncIterator[InMemoryCoordinator]:
    server = InMemoryCoordinator()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def rig(server: InMemoryCoordinator, tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(server, tmp_path) as rig:
        yield rig


async def test_a_lease_is_completed_after_all_its_trials_are_stored(rig: Rig) -> None:
    async def measure(lease: Lease) -> WorkResult:
        await rig.deliver(lease, 70)
        return WorkResult(
            lease_pb2.LEASE_OUTCOME_DONE, space_exhausted=True, phase_seconds={"search": 1.5}
        )

    rig.work.action = measure
    rig.server.lost_acknowledgements = 1
    rig.server.grant(make_lease())
    rig.start_all()
    await eventually(lambda: bool(rig.server.completions))
    done = rig.server.completions[0]
    assert (done.outcome, done.fencing_token) == (lease_pb2.LEASE_OUTCOME_DONE, 7)
    assert done.space_exhausted
    assert dict(done.phase_seconds) == {"search": 1.5}
    assert rig.server.trials_at_completion == {"lease-1": 70}


async def test_leases_follow_one_another_without_waiting(rig: Rig) -> None:
    for number in range(3):
        rig.server.grant(make_lease(f"lease-{number}"))
    rig.start_all()
    await eventually(lambda: len(rig.server.completions) == 3)
    assert rig.work.started == ["lease-0", "lease-1", "lease-2"]


async def test_a_hint_cuts_the_wait_for_work_short(rig: Rig) -> None:
    rig.start_all()
    await eventually(lambda: rig.server.acquisitions > 0 and rig.server.streams == 1)
    rig.server.grant(make_lease())
    rig.server.hint(HINT_WORK_AVAILABLE)
    await eventually(lambda: bool(rig.server.completions))


async def test_without_work_the_agent_asks_again_when_told_to(rig: Rig) -> None:
    rig.server.retry_after_s = 0.0
    rig.start(rig.leasing.run())
    await eventually(lambda: rig.server.acquisitions >= 3)


async def test_the_agent_gets_ready_for_work_that_is_expected(rig: Rig) -> None:
    rig.server.retry_after_s = 0.0
    rig.start(rig.leasing.run())
    await eventually(lambda: rig.server.acquisitions >= 2)
    assert rig.work.expected == 0
    rig.server.work_expected = True
    await eventually(lambda: rig.work.expected > 0)
    assert rig.work.started == []


async def test_a_lease_is_renewed_while_the_work_goes_on(rig: Rig) -> None:
    async def wait_for_renewals(lease: Lease) -> WorkResult:
        await eventually(lambda: rig.server.renewals["lease-1"] >= 3)
        return DONE

    rig.work.action = wait_for_renewals
    rig.server.grant(make_lease(ttl_s=0.15))
    rig.start_all()
    await eventually(lambda: bool(rig.server.completions))
    assert rig.work.cancelled == []


async def test_work_whose_lease_is_lost_is_dropped(rig: Rig) -> None:
    async def lose(lease: Lease) -> WorkResult:
        rig.server.active.clear()
        await rig.deliver(lease, 2)
        await asyncio.Event().wait()
        return DONE

    rig.work.action = lose
    rig.server.grant(make_lease(ttl_s=0.15))
    rig.start_all()
    await eventually(lambda: rig.work.cancelled == ["lease-1"])
    await rig.delivery.flushed("lease-1")
    assert rig.server.completions == []
    assert len(rig.server.trials) == 2


async def test_work_goes_on_after_a_lost_lease(rig: Rig) -> None:
    async def lose_the_first(lease: Lease) -> WorkResult:
        if lease.lease_id == "lost":
            rig.server.active.clear()
            await asyncio.Event().wait()
        return DONE

    rig.work.action = lose_the_first
    rig.server.grant(make_lease("lost", ttl_s=0.15))
    rig.server.grant(make_lease("next"))
    rig.start_all()
    await eventually(lambda: bool(rig.server.completions))
    assert [done.lease_id for done in rig.server.completions] == ["next"]


async def test_a_lease_cancelled_by_the_coordinator_ends_its_work(rig: Rig) -> None:
    async def cancel(lease: Lease) -> WorkResult:
        rig.server.cancelled.add(lease.lease_id)
        rig.server.hint(HINT_LEASE_CHANGED)
        await asyncio.Event().wait()
        return DONE

    rig.work.action = cancel
    rig.server.grant(make_lease())
    rig.start_all()
    await eventually(lambda: rig.work.cancelled == ["lease-1"])


async def test_a_lease_lost_while_it_is_completed_does_not_end_the_agent(rig: Rig) -> None:
    async def lose(lease: Lease) -> WorkResult:
        rig.server.active.clear()
        return DONE

    rig.work.action = lose
    rig.server.grant(make_lease())
    rig.server.grant(make_lease("lease-2"))
    rig.start_all()
    await eventually(lambda: rig.work.started == ["lease-1", "lease-2"])


async def test_the_round_goes_on_while_the_coordinator_is_away(rig: Rig) -> None:
    measured = asyncio.Event()

    async def measure_while_away(lease: Lease) -> WorkResult:
        await rig.server.stop()
        await rig.deliver(lease, 20)
        measured.set()
        return DONE

    rig.work.action = measure_while_away
    rig.server.grant(make_lease(ttl_s=0.5))
    rig.start_all()
    await measured.wait()
    assert rig.outbox.pending() == 20
    await rig.server.start()
    await eventually(lambda: bool(rig.server.completions))
    assert rig.server.trials_at_completion == {"lease-1": 20}
    assert set(rig.server.times_received.values()) == {1}


async def test_when_stopped_the_lease_is_returned_with_what_was_measured(rig: Rig) -> None:
    async def measure_for_ever(lease: Lease) -> WorkResult:
        await rig.deliver(lease, 5)
        await asyncio.Event().wait()
        return DONE

    rig.work.action = measure_for_ever
    rig.server.grant(make_lease())
    leasing = rig.start_all()
    await eventually(lambda: len(rig.server.trials) == 5)
    rig.leasing.stop()
    leasing.cancel()
    await asyncio.wait({leasing})
    await rig.leasing.give_back(10.0)
    assert rig.work.cancelled == ["lease-1"]
    assert rig.server.completions[0].outcome == lease_pb2.LEASE_OUTCOME_RETURNED
    assert rig.server.trials_at_completion == {"lease-1": 5}


async def test_a_stop_that_comes_together_with_a_hint_is_heeded(rig: Rig) -> None:
    leasing = rig.start(rig.leasing.run())
    await eventually(lambda: rig.server.acquisitions > 0)
    # Calls are answered in order, so by now the agent waits for a hint.
    await rig.coordinator.send_heartbeat([], rig.outbox.fill())
    rig.leasing.look_for_work()
    leasing.cancel()
    await asyncio.wait({leasing}, timeout=10.0)
    assert leasing.cancelled()


async def test_giving_back_to_a_coordinator_that_is_away_ends_in_time(rig: Rig) -> None:
    async def wait(lease: Lease) -> WorkResult:
        await asyncio.Event().wait()
        return DONE

    rig.work.action = wait
    rig.server.grant(make_lease())
    leasing = rig.start_all()
    await eventually(lambda: rig.work.started == ["lease-1"])
    await rig.server.stop()
    leasing.cancel()
    await asyncio.wait({leasing})
    await rig.leasing.give_back(0.2)
    assert rig.leasing.held_leases() == []


async def test_work_that_was_done_when_stopped_is_completed_as_done(rig: Rig) -> None:
    finished = asyncio.Event()

    async def finish_while_away(lease: Lease) -> WorkResult:
        await rig.server.stop()
        await rig.deliver(lease, 1)
        finished.set()
        return DONE

    rig.work.action = finish_while_away
    rig.server.grant(make_lease())
    leasing = rig.start_all()
    await finished.wait()
    leasing.cancel()
    await asyncio.wait({leasing})
    await rig.server.start()
    await rig.leasing.give_back(10.0)
    assert rig.server.completions[0].outcome == lease_pb2.LEASE_OUTCOME_DONE


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (RuntimeError("a bug"), lease_pb2.LEASE_OUTCOME_FAILED),
        (OSError("no space left"), lease_pb2.LEASE_OUTCOME_RETURNED),
    ],
)
async def test_work_that_raises_ends_its_lease_with_the_error(
    rig: Rig, error: Exception, outcome: int
) -> None:
    async def fail(lease: Lease) -> WorkResult:
        raise error

    rig.work.action = fail
    rig.server.grant(make_lease())
    rig.start_all()
    await eventually(lambda: bool(rig.server.completions))
    assert rig.server.completions[0].outcome == outcome
    assert str(error) in rig.server.completions[0].error


async def test_work_of_an_unknown_kind_is_refused_with_a_readable_error(rig: Rig) -> None:
    rig.server.waiting.append(lease_pb2.Lease(lease_id="strange", fencing_token=1))
    rig.server.grant(make_lease())
    rig.start_all()
    await eventually(lambda: len(rig.server.completions) == 2)
    assert rig.server.completions[0].outcome == lease_pb2.LEASE_OUTCOME_FAILED
    assert "update this agent" in rig.server.completions[0].error


async def test_no_work_is_taken_while_the_outbox_is_full(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    async with open_rig(server, tmp_path, outbox_limit_bytes=50_000) as rig:
        await rig.deliver(make_lease("earlier"), 400)
        server.grant(make_lease())
        rig.start(rig.leasing.run())
        rig.start(rig.presence.send_heartbeats())
        await eventually(lambda: len(server.heartbeats) >= 3)
        assert server.acquisitions == 0
        rig.start(rig.delivery.run())
        await eventually(lambda: bool(server.completions))


async def test_no_work_is_taken_while_the_disk_is_full(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LOOK_AGAIN_S", 0.01)
    rig.outbox.free_bytes = lambda _: LEAST_FREE_BYTES - 1
    rig.server.grant(make_lease())
    rig.start_all()
    await eventually(lambda: len(rig.server.heartbeats) >= 3)
    assert rig.server.acquisitions == 0
    rig.outbox.free_bytes = lambda _: LEAST_FREE_BYTES
    await eventually(lambda: bool(rig.server.completions))


async def test_the_agent_listens_again_after_the_stream_ended(rig: Rig) -> None:
    rig.start_all()
    await eventually(lambda: rig.server.streams == 1)
    await rig.server.stop()
    await rig.server.start()
    await eventually(lambda: rig.server.streams == 1)
