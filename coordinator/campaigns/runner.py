"""Takes campaigns from their import to their report, and takes them up again after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from coordinator.campaigns.benching import Bencher
from coordinator.campaigns.collecting import collected
from coordinator.campaigns.ending import (
    ALL_MEASURED,
    time_limit_reached,
    together,
    why_group_rests,
)
from coordinator.campaigns.finals import begin_finals, finals_are_due, finals_are_over
from coordinator.campaigns.finishing import Finisher
from coordinator.campaigns.importing import Importer
from coordinator.campaigns.lookups import outlook_of
from coordinator.campaigns.planner import tasks_of
from coordinator.campaigns.replaying import Replayer, replayed
from coordinator.dataset.importing import DatasetImporter
from coordinator.server.bus import Bus
from coordinator.server.compatibility import require_same_tvm
from coordinator.server.disk import DiskGuard
from coordinator.state.database import DATABASE_AWAY
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignState,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

log = structlog.get_logger()

_TICK_S = 1.0
"""How often a campaign that is tuning is looked at: short beside a round."""

_COLLECTION_TICK_S = 10.0
"""The same for a collection, which has thousands of tasks to look at and nobody waiting."""

_AGAIN_AFTER_S = 2.0
"""Before a step is tried again whose disk or database failed it."""

_SAVE_TUNING_TIME_S = 5.0
"""Tuning time that a crash may lose."""


_Step = Callable[[CampaignRecord], Coroutine[Any, Any, None]]


class CampaignRunner:
    """Drives every campaign that has not ended, each in a task of its own."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        importer: Importer,
        finisher: Finisher,
        *,
        datasets: DatasetImporter,
        replayer: Replayer,
        bencher: Bencher,
        disk: DiskGuard,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._bus = bus
        self._importer = importer
        self._finisher = finisher
        self._datasets = datasets
        self._replayer = replayer
        self._bencher = bencher
        self._disk = disk
        self._clock = clock
        # A clock that is set must not use up, or give back, anybody's time limit.
        self._monotonic = monotonic
        self._was_short: set[str] = set()
        self._drivers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Drive campaigns until cancelled; what was begun then is taken up at the next start."""
        try:
            while True:
                try:
                    await self._start_drivers()
                except Exception:  # a full disk, say: it may pass, and must not end the server
                    log.exception("campaigns not read")
                await asyncio.sleep(_TICK_S)
        finally:
            for driver in self._drivers.values():
                driver.cancel()
            await asyncio.gather(*self._drivers.values(), return_exceptions=True)

    async def _start_drivers(self) -> None:
        for campaign in await asyncio.to_thread(self._store.list_campaigns):
            driver = self._drivers.get(campaign.campaign_id)
            if not campaign.state.ended and (driver is None or driver.done()):
                self._drivers[campaign.campaign_id] = asyncio.create_task(
                    self._drive(campaign.campaign_id), name=campaign.campaign_id
                )
            elif campaign.state.ended and driver is not None and driver.done():
                del self._drivers[campaign.campaign_id]

    async def _drive(self, campaign_id: str) -> None:
        while True:
            self._was_short.discard(campaign_id)
            try:
                await self._advance(campaign_id)
            except Exception as e:
                if self._may_pass(campaign_id, e):
                    log.warning("campaign waits", campaign=campaign_id, why=str(e))
                    await self._wait_for_room()
                    continue
                await self._fail(campaign_id, e)
            return

    async def _advance(self, campaign_id: str) -> None:
        """Do one step after the other until the campaign has ended."""
        while True:
            campaign = await asyncio.to_thread(self._store.get_campaign, campaign_id)
            if campaign.state.ended:
                return
            require_same_tvm(campaign)
            step = self._step(campaign)
            if step is None:
                await asyncio.sleep(_TICK_S)
                continue
            await self._cancellable(step(campaign), campaign)
            self._bus.notify_campaign(campaign_id)
            self._bus.notify_work()

    async def _wait_for_room(self) -> None:
        """Wait a moment, and as long as the disk is short: a job costs minutes each time."""
        await asyncio.sleep(_AGAIN_AFTER_S)
        while self._disk.is_short():
            await asyncio.sleep(_AGAIN_AFTER_S)

    def _may_pass(self, campaign_id: str, error: Exception) -> bool:
        """Whether a step failed of what others will mend: every step may be done again."""
        if isinstance(error, DATABASE_AWAY):
            return True
        # Children only say that they failed; the full disk was seen meanwhile.
        of_the_disk = isinstance(error, OSError) or (
            isinstance(error, TuneFleetError) and error.reason is Reason.INTERNAL
        )
        return of_the_disk and (campaign_id in self._was_short or self._disk.is_short())

    def _step(self, campaign: CampaignRecord) -> _Step | None:
        """Return what is to be done for a campaign in its state."""
        steps: dict[CampaignState, _Step] = {
            CampaignState.IMPORTING: self._importer.import_model,
            CampaignState.TUNING: self._tune,
            CampaignState.FINISHING: self._finisher.finish,
        }
        if campaign.spec.purpose is CampaignPurpose.IMPORT:
            steps[CampaignState.IMPORTING] = self._datasets.import_dataset
        if campaign.spec.purpose is CampaignPurpose.REPLAY:
            steps[CampaignState.IMPORTING] = self._replayer.plan
            steps[CampaignState.FINISHING] = self._replayer.finish
        if campaign.spec.purpose is CampaignPurpose.BENCH:
            steps[CampaignState.FINISHING] = self._bencher.finish
        return steps.get(campaign.state)

    async def _cancellable(self, step: Coroutine[Any, Any, None], campaign: CampaignRecord) -> None:
        """Run a step, and end it early if the campaign leaves the state that the step is for."""
        running = asyncio.create_task(step)
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=_TICK_S)
                if self._disk.is_short():
                    self._was_short.add(campaign.campaign_id)
                now = await asyncio.to_thread(self._store.get_campaign, campaign.campaign_id)
                if now.state is not campaign.state and not running.done():
                    running.cancel()
                    with suppress(asyncio.CancelledError):
                        await running
                    return
            running.result()
        finally:
            if not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def _tune(self, campaign: CampaignRecord) -> None:
        """Count the tuning time and watch for its end."""
        campaign_id = campaign.campaign_id
        spent, since, saved = campaign.tuning_s, self._monotonic(), self._monotonic()
        collects = campaign.spec.purpose is CampaignPurpose.COLLECT
        tick_s = _COLLECTION_TICK_S if collects else _TICK_S
        why = campaign.tuning_ended
        try:
            while True:
                spent_now = spent + self._monotonic() - since
                limit = campaign.spec.time_limit_s
                if limit is not None and spent_now >= limit:
                    why = why or time_limit_reached(limit)
                    break
                if why:
                    if await asyncio.to_thread(self._finals_are_over, campaign):
                        break
                else:
                    ends = await asyncio.to_thread(self._why_no_round, campaign, spent_now)
                    if ends and not await asyncio.to_thread(self._begin_finals, campaign, ends):
                        why = ends
                        break
                    if ends:
                        now = await asyncio.to_thread(self._store.get_campaign, campaign_id)
                        why = now.tuning_ended
                if self._monotonic() - saved >= _SAVE_TUNING_TIME_S:
                    saved = self._monotonic()
                    await self._save_tuning_time(campaign_id, spent_now, self._clock())
                await asyncio.sleep(tick_s)
        finally:
            spent += self._monotonic() - since
            await self._save_tuning_time(campaign_id, spent, None)
        log.info("tuning ended", campaign=campaign_id, why=why)
        with suppress(TuneFleetError):  # it was paused or cancelled meanwhile
            await asyncio.to_thread(self._end_tuning, campaign, why)
            for lease in await asyncio.to_thread(self._store.cancel_leases, campaign_id):
                self._bus.notify_leases(lease.device_id)

    def _end_tuning(self, campaign: CampaignRecord, why: str) -> None:
        changes: dict[str, Any] = {
            "state": CampaignState.FINISHING,
            "activity": "waiting for the last rounds",
        }
        if campaign.spec.purpose in {CampaignPurpose.COLLECT, CampaignPurpose.IMPORT}:
            # The trials are all there is to it.
            changes = {
                "state": CampaignState.DONE,
                "ended_at_unix_s": self._clock(),
                "activity": "",
            }
        self._store.update_campaign(
            campaign.campaign_id, [CampaignState.TUNING], tuning_ended=why, **changes
        )

    async def _save_tuning_time(self, campaign_id: str, spent: float, since: float | None) -> None:
        await asyncio.to_thread(
            self._store.update_campaign,
            campaign_id,
            [],
            tuning_s=spent,
            tuning_since_unix_s=since,
        )

    def _why_no_round(self, campaign: CampaignRecord, spent_s: float) -> str:
        """Say why nothing new is to be tried; empty while something is."""
        why = self._why_at_rest(campaign)
        limit_s = campaign.spec.time_limit_s
        if why or limit_s is None or campaign.spec.purpose is not CampaignPurpose.TUNE:
            return why
        due = finals_are_due(self._store, campaign, spent_s)
        return time_limit_reached(limit_s) if due else ""

    def _begin_finals(self, campaign: CampaignRecord, why: str) -> bool:
        tunes = campaign.spec.purpose is CampaignPurpose.TUNE
        if not tunes or not begin_finals(self._store, campaign, why):
            return False
        log.info("measuring the best again", campaign=campaign.campaign_id, why=why)
        self._bus.notify_work()
        self._bus.notify_campaign(campaign.campaign_id)
        return True

    def _finals_are_over(self, campaign: CampaignRecord) -> bool:
        if self._store.is_leased(campaign.campaign_id):
            return False
        return finals_are_over(self._store, campaign)

    def _why_at_rest(self, campaign: CampaignRecord) -> str:
        """Say why no device has, or will get, anything to do; empty while one has."""
        if self._store.is_leased(campaign.campaign_id):
            return ""
        if campaign.spec.purpose is CampaignPurpose.IMPORT:
            left = self._store.count_unfeatured(campaign.campaign_id)
            return "" if left else "no features are missing"
        if campaign.spec.purpose is CampaignPurpose.REPLAY:
            return ALL_MEASURED if replayed(self._store, campaign) else ""
        progress = self._store.task_progress(campaign.campaign_id)
        if campaign.spec.purpose is CampaignPurpose.COLLECT:
            wanted = campaign.spec.trials_per_task
            return ALL_MEASURED if all(collected(t, wanted) for t in progress) else ""
        reasons = [
            why_group_rests(
                outlook_of(self._store, group, tasks_of(progress, group)),
                campaign.trials_wanted,
                campaign.spec.min_gain,
            )
            for group in campaign.groups
        ]
        return together(reasons) if all(reasons) else ""

    async def _fail(self, campaign_id: str, cause: Exception) -> None:
        if isinstance(cause, TuneFleetError):
            error = cause
            log.warning("campaign failed", campaign=campaign_id, reason=error.reason.name)
        else:
            error = TuneFleetError(Reason.INTERNAL, repr(cause))
            log.error("campaign failed", campaign=campaign_id, exc_info=cause)
        with suppress(TuneFleetError):
            await asyncio.to_thread(
                self._store.update_campaign,
                campaign_id,
                [s for s in CampaignState if not s.ended],
                state=CampaignState.FAILED,
                ended_at_unix_s=self._clock(),
                error_reason=error.reason.name,
                error_message=error.message,
                activity="",
            )
        await asyncio.to_thread(self._store.cancel_leases, campaign_id)
        self._bus.notify_campaign(campaign_id)
