"""Every trial that was measured reaches the coordinator, once, whatever lies between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_memory_coordinator import InMemoryCoordinator
from processes import eventually
from session_rig import Rig, make_lease, make_trial, open_rig

from agent.session.delivery import MAX_BATCH_TRIALS


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


async def test_trials_arrive_and_leave_the_outbox(rig: Rig) -> None:
    rig.start(rig.delivery.run())
    sent = await rig.deliver(make_lease(), 5)
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent
    assert rig.outbox.pending() == 0


async def test_trials_travel_together_and_the_last_of_a_round_do_not_wait(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    async with open_rig(server, tmp_path, report_s=3600.0) as rig:
        rig.start(rig.delivery.run())
        await rig.deliver(make_lease(), 1)
        await eventually(lambda: rig.outbox.pending() == 0)
        await rig.deliver(make_lease(), 5, first=1)
        await rig.delivery.flushed("lease-1")
        assert server.batch_sizes == [1, 5]


async def test_how_long_trials_are_gathered_is_the_coordinators_wish(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    async with open_rig(server, tmp_path, report_s=3600.0) as rig:
        rig.start(rig.delivery.run())
        server.report_interval_s = 0.0
        await rig.coordinator.send_heartbeat([], rig.outbox.fill())
        for number in range(3):
            await rig.deliver(make_lease(), 1, first=number)
            await eventually(lambda: rig.outbox.pending() == 0)
        assert server.batch_sizes == [1, 1, 1]


async def test_trials_of_an_earlier_run_are_sent_first(rig: Rig) -> None:
    earlier = await rig.deliver(make_lease("earlier"), 3)
    later = await rig.deliver(make_lease("later"), 3)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("later")
    received = list(rig.server.times_received)
    assert (set(received[:3]), set(received[3:])) == (earlier, later)


async def test_what_is_measured_while_the_coordinator_is_away_arrives_once(rig: Rig) -> None:
    rig.start(rig.delivery.run())
    lease = make_lease()
    before = await rig.deliver(lease, 3)
    await rig.delivery.flushed("lease-1")
    await rig.server.stop()
    during = await rig.deliver(lease, 10, first=3)
    assert rig.outbox.pending() == 10
    await rig.server.start()
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == before | during
    assert set(rig.server.times_received.values()) == {1}


async def test_trials_whose_acknowledgement_was_lost_are_sent_again(rig: Rig) -> None:
    rig.server.lost_acknowledgements = 2
    sent = await rig.deliver(make_lease(), 4)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent
    assert set(rig.server.times_received.values()) == {3}


async def test_a_coordinator_that_is_asked_too_often_gets_the_trials_later(rig: Rig) -> None:
    rig.server.throttled.extend([0.01, 0.02])
    sent = await rig.deliver(make_lease(), 4)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent
    assert set(rig.server.times_received.values()) == {1}


async def test_rejected_trials_are_not_kept(rig: Rig) -> None:
    refused = make_trial("lease-1", 1).trial_id
    rig.server.rejected[refused] = "it names another lease"
    sent = await rig.deliver(make_lease(), 3)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent - {refused}


async def test_a_trial_that_spoils_its_batch_does_not_keep_the_others_back(rig: Rig) -> None:
    spoilt = make_trial("lease-1", 1).trial_id
    rig.server.poison = {spoilt}
    sent = await rig.deliver(make_lease(), 4)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent - {spoilt}


async def test_a_damaged_trial_does_not_keep_the_others_back(rig: Rig) -> None:
    rig.outbox.put("damaged", "lease-1", 7, b"\xff\xff\xff")
    sent = await rig.deliver(make_lease(), 2)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent


async def test_batches_are_bounded(rig: Rig) -> None:
    await rig.deliver(make_lease(), MAX_BATCH_TRIALS + 1)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert rig.server.batch_sizes == [MAX_BATCH_TRIALS, 1]


async def test_an_agent_that_is_no_longer_known_registers_again(rig: Rig) -> None:
    rig.server.known_devices.clear()
    sent = await rig.deliver(make_lease(), 2)
    rig.start(rig.delivery.run())
    await rig.delivery.flushed("lease-1")
    assert set(rig.server.trials) == sent
    assert len(rig.server.registrations) == 2


async def test_heartbeats_tell_how_much_waits(rig: Rig) -> None:
    await rig.deliver(make_lease(), 3)
    rig.start(rig.presence.send_heartbeats())
    await eventually(lambda: bool(rig.server.heartbeats))
    told = rig.server.heartbeats[0]
    assert told.outbox_trials == 3
    assert 0 < told.outbox_bytes < told.outbox_limit_bytes == 2**20
