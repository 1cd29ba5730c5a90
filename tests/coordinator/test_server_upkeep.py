from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from store_samples import NOW, campaign, device, lease, task

from coordinator.server.bus import Bus, Notice
from coordinator.server.limits import LEASE_TTL_S, SUSPENDED_AFTER_S
from coordinator.server.upkeep import Upkeep
from coordinator.state.records import LeaseRecord, LeaseState
from coordinator.state.sql import open_store
from coordinator.state.store import Store

PATIENCE_S = 20.0


@dataclass
class Clock:
    """Time that a test sets."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with one active lease, whose time is up 60 s after NOW."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    opened.put_device(device())
    opened.create_campaign(campaign(), "")
    opened.add_tasks("c-1", [task()])
    opened.grant_lease(lease())
    yield opened
    opened.close()


async def test_an_expired_lease_is_ended_and_both_sides_hear_of_it(store: Store) -> None:
    bus, clock = Bus(), Clock(NOW + 60)
    async with asyncio.timeout(PATIENCE_S), aclosing(bus.watch_device("id-pi4")) as notices:
        assert await anext(notices) is Notice.OPENED
        Upkeep(store, bus, clock).expire()
        heard = {await anext(notices), await anext(notices)}
    assert heard == {Notice.WORK, Notice.LEASES}
    assert store.list_leases()[0].state is LeaseState.EXPIRED


async def test_after_a_restart_agents_have_time_to_come_back(store: Store) -> None:
    clock = Clock(NOW + 3600)
    upkeep = Upkeep(store, Bus(), clock)
    upkeep.give_time()
    upkeep.expire()
    renewed = store.active_lease("id-pi4")
    assert renewed is not None
    assert renewed.expires_at_unix_s == clock.now + LEASE_TTL_S


@pytest.mark.parametrize("jump_s", [10 * LEASE_TTL_S, -172_800.0])
async def test_neither_a_stop_nor_a_clock_that_is_set_changes_how_long_leases_hold(
    store: Store, jump_s: float
) -> None:
    clock = Clock()
    running = asyncio.create_task(Upkeep(store, Bus(), clock, interval_s=0.01).run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while _expires_at(store) != NOW + LEASE_TTL_S:
                await asyncio.sleep(0.01)
            # As after a SIGSTOP: the clock jumps between two checks.
            clock.now += jump_s
            while _expires_at(store) != clock.now + LEASE_TTL_S:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


async def test_a_store_that_fails_for_a_while_does_not_end_the_upkeep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, failures = Clock(), 0
    working = store.expire_leases

    def fail_twice(now: float) -> list[LeaseRecord]:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise OSError("no space left on device")
        return working(now)

    monkeypatch.setattr(store, "expire_leases", fail_twice)
    running = asyncio.create_task(Upkeep(store, Bus(), clock, interval_s=0.01).run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while failures <= 2:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()


async def test_leases_expire_while_it_runs(store: Store) -> None:
    clock = Clock()
    running = asyncio.create_task(Upkeep(store, Bus(), clock, interval_s=0.01).run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while store.active_lease("id-pi4") is not None:
                clock.now += SUSPENDED_AFTER_S / 2
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
    assert clock.now >= NOW + LEASE_TTL_S


def _expires_at(store: Store) -> float:
    active = store.active_lease("id-pi4")
    assert active is not None
    return active.expires_at_unix_s
