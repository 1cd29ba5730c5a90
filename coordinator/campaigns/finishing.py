"""From the best schedules to a module a person can use: compile, benchmark, report."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.campaigns.planner import tasks_of
from coordinator.campaigns.summary import campaign_summary
from coordinator.jobs import run_job
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import (
    ArtifactRecord,
    CampaignRecord,
    CampaignState,
    GroupRecord,
)
from coordinator.state.store import Store
from tunefleet.errors import TuneFleetError
from tunefleet.leases import is_baseline

_POLL_S = 0.5
"""How often to look whether the last rounds and the benchmarks are done."""

BENCHMARK_ACTIVITY = "timing untuned, tuned and onnxruntime end to end on the device"

_COMPILE_TIMEOUT_S = 1800.0
_REPORT_TIMEOUT_S = 300.0


class Finisher:
    """Finishes campaigns."""

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
        """Compile, have benchmarked and report; steps that were done before a restart are kept.

        Raises:
            TuneFleetError: a module could not be compiled or the report not written.
        """
        folder = self._home.campaign_dir(campaign.campaign_id)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        for index, group in enumerate(campaign.groups):
            if not group.compiled:
                await self._compile(campaign, group, group_dir(folder, campaign, index))
        self._say(campaign.campaign_id, BENCHMARK_ACTIVITY)
        self._bus.notify_work()
        await await_benchmarks(self._store, campaign.campaign_id)
        await self._report(campaign.campaign_id, folder)

    async def _compile(self, campaign: CampaignRecord, group: GroupRecord, folder: Path) -> None:
        self._say(campaign.campaign_id, "compiling with the best schedules")
        work_dir = self._home.run_dir / f"compile-{campaign.campaign_id}"
        try:
            records = await asyncio.to_thread(self._write_records, campaign, group, work_dir)
            result = await run_job(
                "coordinator.models.compile_job",
                {
                    "prepared": str(self._blobs.path(group.prepared_digest)),
                    "untuned": str(self._blobs.path(group.untuned_digest)),
                    "target": group.target,
                    "records": str(records),
                    "out_dir": str(folder),
                },
                work_dir,
                timeout_s=_COMPILE_TIMEOUT_S,
                progress=lambda _, text: self._say(campaign.campaign_id, text),
            )
            compiled = {
                name: await asyncio.to_thread(self._blobs.put_file, Path(result[name]))
                for name in ("untuned", "tuned")
            }
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        await asyncio.to_thread(self._update_group, campaign.campaign_id, group, compiled)
        self._bus.notify_work()

    def _write_records(self, campaign: CampaignRecord, group: GroupRecord, work_dir: Path) -> Path:
        rows: list[dict[str, Any]] = []
        for progress in tasks_of(self._store.task_progress(campaign.campaign_id), group):
            best = self._store.best_candidates(progress.task.key, 1)
            # Where nothing beats the unscheduled program, the network keeps it as it is.
            if best and not is_baseline(best[0].trace):
                rows.append(
                    {
                        "workload": progress.task.key.workload,
                        "workload_path": str(self._blobs.path(progress.task.workload_digest)),
                        "trace": best[0].trace,
                        "latency_s": best[0].latency_s,
                    }
                )
        work_dir.mkdir(parents=True, exist_ok=True)
        path = work_dir / "records.json"
        path.write_text(json.dumps(rows))
        return path

    def _update_group(self, campaign_id: str, group: GroupRecord, compiled: dict[str, str]) -> None:
        campaign = self._store.get_campaign(campaign_id)
        groups = tuple(
            replace(g, compiled=compiled)
            if (g.target, g.fingerprint) == (group.target, group.fingerprint)
            else g
            for g in campaign.groups
        )
        self._store.update_campaign(campaign_id, [CampaignState.FINISHING], groups=groups)

    async def _report(self, campaign_id: str, folder: Path) -> None:
        self._say(campaign_id, "writing the report")
        work_dir = self._home.run_dir / f"report-{campaign_id}"
        try:
            summary = await asyncio.to_thread(campaign_summary, self._store, campaign_id)
            await run_job(
                "coordinator.report.job",
                {"summary": summary, "out_dir": str(folder)},
                work_dir,
                timeout_s=_REPORT_TIMEOUT_S,
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        artifacts = await asyncio.to_thread(self._collect, folder)
        await asyncio.to_thread(
            self._store.update_campaign,
            campaign_id,
            [CampaignState.FINISHING],
            state=CampaignState.DONE,
            ended_at_unix_s=self._clock(),
            artifacts=artifacts,
            artifact_dir=str(folder),
            activity="",
        )

    def _collect(self, folder: Path) -> tuple[ArtifactRecord, ...]:
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return tuple(
            ArtifactRecord(
                path=p.relative_to(folder).as_posix(),
                digest=self._blobs.put_file(p),
                size_bytes=p.stat().st_size,
            )
            for p in files
        )

    def _say(self, campaign_id: str, activity: str) -> None:
        with suppress(TuneFleetError):
            self._store.update_campaign(campaign_id, [CampaignState.FINISHING], activity=activity)
        self._bus.notify_campaign(campaign_id)


async def await_benchmarks(store: Store, campaign_id: str) -> CampaignRecord:
    """Return a finishing campaign once every group of it was timed, or failed to be."""
    while True:
        campaign = await asyncio.to_thread(store.get_campaign, campaign_id)
        if all(g.benchmark_s or g.benchmark_error for g in campaign.groups):
            return campaign
        await asyncio.sleep(_POLL_S)


def group_dir(folder: Path, campaign: CampaignRecord, index: int) -> Path:
    """Results of a single group lie in the folder itself; several get a folder each."""
    if len(campaign.groups) == 1:
        return folder
    options = json.loads(campaign.groups[index].target)
    # A target is what somebody asked for: only what cannot lead out of the folder is taken of it.
    name = re.sub(r"[^A-Za-z0-9_+-]", "_", str(options.get("mcpu", options["kind"])))[:64]
    return folder / f"{index}-{name}"
