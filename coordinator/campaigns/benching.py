"""Campaigns that time again what another campaign compiled, and show where the time goes."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from coordinator.campaigns.breakdown import group_result
from coordinator.campaigns.finishing import BENCHMARK_ACTIVITY, await_benchmarks
from coordinator.campaigns.planner import tasks_of
from coordinator.campaigns.results import end_with_result
from coordinator.jobs import run_job
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import (
    BenchSource,
    CampaignRecord,
    CampaignState,
    GroupRecord,
    LeaseKind,
    LeaseState,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

RESULT_FILE = "bench.json"

_JOB_TIMEOUT_S = 600.0
"""Reading a large network takes a minute on a slow machine."""


class Bencher:
    """Has the groups of campaigns timed and joins the result with what tuning measured."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        home: Home,
        bus: Bus,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._bus = bus
        self._clock = clock

    async def finish(self, campaign: CampaignRecord) -> None:
        """Wait for the devices, keep what they found, end the campaign.

        Raises:
            TuneFleetError: CAMPAIGN_FAILED, no group could be timed.
        """
        assert campaign.spec.bench is not None
        self._say(campaign.campaign_id, BENCHMARK_ACTIVITY)
        self._bus.notify_work()
        timed = await await_benchmarks(self._store, campaign.campaign_id)
        if not any(group.benchmark_s for group in timed.groups):
            told = "; ".join(dict.fromkeys(group.benchmark_error for group in timed.groups))
            raise TuneFleetError(Reason.CAMPAIGN_FAILED, f"nothing could be timed: {told}")
        functions = await self._functions(timed) if campaign.spec.bench.per_op else {}
        await asyncio.to_thread(self._keep, timed, campaign.spec.bench, functions)

    async def _functions(self, campaign: CampaignRecord) -> dict[str, dict[str, str]]:
        """Return each target's functions with their workloads."""
        found: dict[str, dict[str, str]] = {}
        for group in campaign.groups:
            if group.target in found:
                continue
            self._say(campaign.campaign_id, "matching functions with tasks")
            work_dir = self._home.run_dir / f"bench-{campaign.campaign_id}"
            try:
                result = await run_job(
                    "coordinator.models.functions_job",
                    {"prepared": str(self._blobs.path(group.prepared_digest))},
                    work_dir,
                    timeout_s=_JOB_TIMEOUT_S,
                )
            finally:
                await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
            found[group.target] = result["functions"]
        return found

    def _keep(
        self,
        campaign: CampaignRecord,
        source: BenchSource,
        functions: Mapping[str, Mapping[str, str]],
    ) -> None:
        tasks = self._store.task_progress(source.campaign_id)
        result: dict[str, Any] = {
            "campaign_id": source.campaign_id,
            "per_op": source.per_op,
            "groups": [
                group_result(
                    group,
                    self._device(campaign, group),
                    functions.get(group.target, {}),
                    tasks_of(tasks, group),
                )
                for group in campaign.groups
            ],
        }
        end_with_result(
            self._store, self._blobs, campaign.campaign_id, RESULT_FILE, result, now=self._clock()
        )

    def _device(self, campaign: CampaignRecord, group: GroupRecord) -> str:
        """Name the device that timed a group."""
        leases = self._store.list_leases(campaign.campaign_id, [LeaseState.DONE])
        ids = [
            lease.device_id
            for lease in leases
            if lease.kind is LeaseKind.BENCHMARK
            and (lease.target, lease.fingerprint) == (group.target, group.fingerprint)
        ]
        return self._store.get_device(ids[-1]).name if ids else ""

    def _say(self, campaign_id: str, activity: str) -> None:
        with suppress(TuneFleetError):
            self._store.update_campaign(campaign_id, [CampaignState.FINISHING], activity=activity)
        self._bus.notify_campaign(campaign_id)
