from __future__ import annotations

import asyncio
from contextlib import aclosing

from coordinator.server.bus import Bus, Notice

PATIENCE_S = 20.0
NEVER_S = 3600.0


async def test_a_watch_yields_at_once_and_after_a_change() -> None:
    bus = Bus()
    async with (
        asyncio.timeout(PATIENCE_S),
        aclosing(bus.watch_campaign("c-1", 0.0, NEVER_S)) as changes,
    ):
        await anext(changes)
        bus.notify_campaign("c-1")
        await anext(changes)


async def test_a_watch_yields_from_time_to_time_without_a_change() -> None:
    async with (
        asyncio.timeout(PATIENCE_S),
        aclosing(Bus().watch_campaign("c-1", 0.0, 0.01)) as changes,
    ):
        for _ in range(3):
            await anext(changes)


async def test_many_changes_wake_a_watcher_once() -> None:
    bus = Bus()
    seen = 0

    async def watch() -> None:
        nonlocal seen
        async for _ in bus.watch_campaign("c-1", 0.0, NEVER_S):
            seen += 1

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    for _ in range(100):
        bus.notify_campaign("c-1")
    await asyncio.sleep(0.05)
    bus.stop()
    async with asyncio.timeout(PATIENCE_S):
        await watching
    assert seen == 2


async def test_other_campaigns_do_not_wake_a_watcher_of_one() -> None:
    bus = Bus()
    async with aclosing(bus.watch_campaign("c-1", 0.0, NEVER_S)) as changes:
        await anext(changes)
        waiting = asyncio.ensure_future(anext(changes))
        bus.notify_campaign("c-2")
        bus.notify_work()
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        bus.notify_campaign("c-1")
        async with asyncio.timeout(PATIENCE_S):
            await waiting


async def test_a_watcher_of_all_hears_of_any() -> None:
    bus = Bus()
    async with (
        asyncio.timeout(PATIENCE_S),
        aclosing(bus.watch_campaign("", 0.0, NEVER_S)) as changes,
    ):
        await anext(changes)
        bus.notify_campaign("c-7")
        await anext(changes)


async def test_threads_may_notify() -> None:
    bus = Bus()
    async with asyncio.timeout(PATIENCE_S), aclosing(bus.watch_device("id-pi4")) as notices:
        assert await anext(notices) is Notice.OPENED
        await asyncio.to_thread(bus.notify_work)
        assert await anext(notices) is Notice.WORK


async def test_equal_notices_are_told_once() -> None:
    bus = Bus()
    async with asyncio.timeout(PATIENCE_S), aclosing(bus.watch_device("id-pi4")) as notices:
        assert await anext(notices) is Notice.OPENED
        for _ in range(5):
            bus.notify_work()
        bus.notify_leases("id-pi4")
        assert [await anext(notices), await anext(notices)] == [Notice.WORK, Notice.LEASES]


async def test_only_devices_that_wait_for_work_hear_of_it() -> None:
    bus = Bus()
    busy, waiting = bus.watch_device("id-busy"), bus.watch_device("id-waiting")
    for notices in (busy, waiting):
        assert await anext(notices) is Notice.OPENED
    bus.device_works("id-busy")
    bus.notify_work()
    bus.notify_leases("id-busy")
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(waiting) is Notice.WORK
        assert await anext(busy) is Notice.LEASES
    bus.device_waits("id-busy", "hardware")
    assert bus.waiting_devices() == 2
    bus.notify_work()
    async with asyncio.timeout(PATIENCE_S):
        assert await anext(busy) is Notice.WORK


async def test_work_for_few_wakes_few_in_turn() -> None:
    bus = Bus()
    names = ("id-1", "id-2", "id-3", "id-other")
    watching = {name: bus.watch_device(name) for name in names}
    for name, notices in watching.items():
        assert await anext(notices) is Notice.OPENED
        bus.device_waits(name, "other" if name == "id-other" else "hardware")
    heard = [asyncio.ensure_future(anext(notices)) for notices in watching.values()]
    bus.notify_work("hardware", at_most=1)
    await asyncio.wait(heard, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in heard] == [True, False, False, False]
    bus.notify_work("hardware", at_most=2)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*heard[1:3])
    assert not heard[3].done()
    bus.stop()
    async with asyncio.timeout(PATIENCE_S):
        assert await heard[3] is Notice.STOPPING


async def test_stopping_is_the_last_notice() -> None:
    bus = Bus()
    notices = bus.watch_device("id-pi4")
    assert await anext(notices) is Notice.OPENED
    bus.stop()
    async with asyncio.timeout(PATIENCE_S):
        assert [notice async for notice in notices] == [Notice.STOPPING]
