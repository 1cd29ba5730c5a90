"""When this process looks for garbage: seldom, and all of it once a minute.

A thousand connections are many objects. By default Python looks through all of them whenever there
are a quarter more, and nobody is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import gc

EVERY_S = 60.0
"""Seldom enough that few calls meet it, and often enough that what quick looks miss stays small."""

_NEW_OBJECTS = 50_000
"""After so many new objects cycles are looked for among them."""
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
