"""Waits for the devices of a campaign to have measured themselves, since targets depend on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from coordinator.server.messages import is_online
from coordinator.server.selectors import matches
from coordinator.state.records import CampaignRecord, DeviceRecord
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

_DEVICE_POLL_S = 0.5
"""How often to look whether the devices have measured themselves."""


async def ready_devices(
    store: Store,
    campaign: CampaignRecord,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.time,
) -> list[DeviceRecord]:
    """Return a campaign's devices once every one of them that is online is ready.

    One that vanished before it had measured itself may never come back: only where no device is
    ready, it is waited for.

    Args:
        store: where devices are known.
        campaign: whose selector chooses.
        say: told whom is waited for.
        clock: seconds since 1970.

    Raises:
        TuneFleetError: NO_DEVICE_MATCHES.
    """
    while True:
        known = await asyncio.to_thread(store.list_devices)
        chosen = [d for d in known if matches(campaign.spec.device_selector, d)]
        if not chosen:
            raise TuneFleetError(
                Reason.NO_DEVICE_MATCHES,
                f"no device matches {campaign.spec.device_selector!r} any more",
            )
        ready = [d for d in chosen if d.ready]
        measuring = [d for d in chosen if not d.ready and is_online(d, clock())]
        if ready and not measuring:
            return ready
        names = ", ".join(sorted(d.name for d in measuring or chosen))
        say(f"waiting for {names} to {'measure itself' if measuring else 'come back'}")
        await asyncio.sleep(_DEVICE_POLL_S)
