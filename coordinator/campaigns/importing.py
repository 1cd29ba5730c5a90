"""From a model file to tasks: waits for the devices, runs the import job, stores what it found."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from coordinator.campaigns.planner import tasks_of
from coordinator.campaigns.readiness import ready_devices
from coordinator.campaigns.scheduler import default_trials
from coordinator.jobs import JOBS_AT_ONCE, run_job
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignState,
    GroupRecord,
    TaskKey,
    TaskProgress,
    TaskRecord,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

_IMPORT_TIMEOUT_S = 1800.0
"""Large networks take minutes on a slow machine; a job that takes longer is stuck."""


class Importer:
    """Imports the models of campaigns."""

    def __init__(self, store: Store, blobs: BlobStore, home: Home, bus: Bus) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._bus = bus
        self._turns = asyncio.Semaphore(JOBS_AT_ONCE)

    async def import_model(self, campaign: CampaignRecord) -> None:
        """Import a campaign's model and let its tuning begin.

        Raises:
            TuneFleetError: the model cannot be tuned, with the reason why.
        """
        devices = await ready_devices(
            self._store, campaign, lambda text: self._say(campaign.campaign_id, text)
        )
        groups = sorted({(t, d.fingerprint) for d in devices for t in campaign.spec.targets_for(d)})
        targets = sorted({target for target, _ in groups})
        work_dir = self._home.run_dir / f"import-{campaign.campaign_id}"
        job, spec = self._job(campaign, targets, work_dir / "out")
        try:
            async with self._turns:
                result = await run_job(
                    job,
                    spec,
                    work_dir,
                    timeout_s=_IMPORT_TIMEOUT_S,
                    progress=lambda _, text: self._say(campaign.campaign_id, text),
                    blame=Reason.INTERNAL if campaign.spec.families else Reason.MODEL_INVALID,
                )
            await asyncio.to_thread(self._keep, campaign, groups, result)
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)

    def _job(
        self, campaign: CampaignRecord, targets: list[str], out_dir: Path
    ) -> tuple[str, dict[str, Any]]:
        spec = campaign.spec
        common: dict[str, Any] = {"targets": targets, "out_dir": str(out_dir)}
        if spec.families:
            return "coordinator.models.families_job", common | {
                "families": list(spec.families),
                "workloads": spec.workloads,
                "seed": spec.seed,
            }
        return "coordinator.models.import_job", common | {
            "model_path": str(self._blobs.path(spec.model_digest)),
            "model_filename": spec.model_filename,
            "shapes": {name: list(dims) for name, dims in spec.shapes.items()},
            "tasks_only": spec.purpose is CampaignPurpose.COLLECT,
        }

    def _keep(
        self,
        campaign: CampaignRecord,
        groups: Sequence[tuple[str, str]],
        result: dict[str, Any],
    ) -> None:
        prepared = {t: self._put(path) for t, path in result["prepared"].items()}
        untuned = {t: self._put(path) for t, path in result["untuned"].items()}
        records = tuple(
            GroupRecord(t, f, prepared.get(t, ""), untuned.get(t, "")) for t, f in groups
        )
        digests = {task["path"]: self._put(task["path"]) for task in result["tasks"]}
        for target, fingerprint in groups:
            self._store.add_tasks(
                campaign.campaign_id,
                [
                    TaskRecord(
                        key=TaskKey(task["workload"], target, fingerprint),
                        name=task["name"],
                        weight=task["weight"],
                        flops=task["flops"],
                        workload_digest=digests[task["path"]],
                        sources=task.get("sources") or {campaign.spec.name: task["weight"]},
                    )
                    for task in result["tasks"]
                    if task["target"] == target
                ],
                # A collection fills the store up: what it has needs not be measured again.
                count_stored=campaign.spec.purpose is CampaignPurpose.COLLECT,
            )
        progress = self._store.task_progress(campaign.campaign_id)
        wanted = campaign.spec.trials or max(
            _default_trials(campaign, tasks_of(progress, group)) for group in records
        )
        with suppress(TuneFleetError):  # it was cancelled meanwhile
            self._store.update_campaign(
                campaign.campaign_id,
                [CampaignState.IMPORTING],
                state=CampaignState.TUNING,
                groups=records,
                trials_wanted=wanted,
                onnx_digest=self._put(result["onnx"]) if result.get("onnx") else "",
                inputs_digest=self._put(result["inputs_npz"]) if result["inputs_npz"] else "",
                outputs_digest=self._put(result["outputs_npz"]) if result["outputs_npz"] else "",
                activity="",
            )

    def _put(self, path: str) -> str:
        return self._blobs.put_file(Path(path))

    def _say(self, campaign_id: str, activity: str) -> None:
        with suppress(TuneFleetError):
            self._store.update_campaign(campaign_id, [CampaignState.IMPORTING], activity=activity)
        self._bus.notify_campaign(campaign_id)


def _default_trials(campaign: CampaignRecord, tasks: Sequence[TaskProgress]) -> int:
    if campaign.spec.purpose is CampaignPurpose.COLLECT:
        return campaign.spec.trials_per_task * len(tasks)
    return default_trials(tasks)
