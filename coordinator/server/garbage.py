"""When this process looks for garbage: seldom, and all of it once a minute.

A thousand connections are a million objects. By default Python looks through all of them whenever
there are a quarter more, and nobody is answered for a quarter of a second each time.
"""

from __future__ import annotations

import asyncio
import gc

EVERY_S = 60.0
"""What the quick looks miss in this time is some megabytes."""

_NEW_OBJECTS = 50_000
"""After so many new objects cycles are looked for among them, which takes milliseconds."""
_QUICK_LOOKS = 20
"""After which what survived them is looked through, too."""
_NEVER = 1_000_000


async def collect_garbage(every_s: float = EVERY_S) -> None:
    """Look for garbage until cancelled."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what was imported stays
    gc.set_threshold(_NEW_OBJECTS, _QUICK_LOOKS, _NEVER)
    try:
        while True:
            await asyncio.sleep(every_s)
            gc.collect()
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
