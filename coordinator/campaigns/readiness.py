"""Waits for the devices of a campaign to have measured themselves, since targets depend on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator.server.selectors import matches
from coordinator.state.records import CampaignRecord, DeviceRecord
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

_DEVICE_POLL_S = 0.5
"""How often to look whether the devices have measured themselves."""


async def ready_devices(
    store: Store, campaign: CampaignRecord, say: Callable[[str], None]
) -> list[DeviceRecord]:
    """Return a campaign's devices once every one of them is ready.

    Args:
        store: where devices are known.
        campaign: whose selector chooses.
        say: told whom is waited for.

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
        if len(ready) == len(chosen):
            return ready
        waiting = ", ".join(sorted(d.name for d in chosen if not d.ready))
        say(f"waiting for {waiting} to measure itself")
        await asyncio.sleep(_DEVICE_POLL_S)
