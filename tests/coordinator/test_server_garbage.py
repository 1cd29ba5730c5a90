from __future__ import annotations

import asyncio
import gc
import weakref

from coordinator.server.garbage import collect_garbage


class Knot:
    """Refers to itself."""

    def __init__(self) -> None:
        self.me = self


async def test_garbage_that_grew_old_is_found_and_all_is_as_it_was_at_the_end() -> None:
    before = gc.get_threshold()
    collecting = asyncio.create_task(collect_garbage(every_s=0.05))
    await asyncio.sleep(0)
    assert gc.get_threshold() != before
    knot = Knot()
    gc.collect()
    gc.collect()  # now it is among the old ones
    seen = weakref.ref(knot)
    del knot
    async with asyncio.timeout(60.0):
        while seen() is not None:
            await asyncio.sleep(0.01)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
