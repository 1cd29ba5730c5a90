"""Drives a campaign that imports a dataset: its job, then the features that are missing."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from coordinator.jobs import JOBS_AT_ONCE, run_job
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import (
    ArtifactRecord,
    CampaignRecord,
    CampaignState,
    DatasetFormat,
    DatasetSource,
    GroupRecord,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

log = structlog.get_logger()

RESULT_FILE = "import.json"
TRIALS_FILE = "trials.txt"
"""Names of the trials of an imported MetaSchedule database, one a line; records have none."""

_IMPORT_TIMEOUT_S = 4 * 3600.0
_JOBS = {
    DatasetFormat.PARQUET: "coordinator.dataset.import_job",
    DatasetFormat.METASCHEDULE: "coordinator.models.import_database_job",
}


class DatasetImporter:
    """Imports datasets."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        home: Home,
        bus: Bus,
        *,
        database_url: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._bus = bus
        self._database_url = database_url
        self._clock = clock
        self._turns = asyncio.Semaphore(JOBS_AT_ONCE)

    async def import_dataset(self, campaign: CampaignRecord) -> None:
        """Take a campaign's dataset in; what a restart interrupted is simply done again.

        Raises:
            TuneFleetError: DATASET_INVALID, with the reason why.
        """
        source = campaign.spec.dataset
        assert source is not None
        work_dir = self._home.run_dir / f"import-{campaign.campaign_id}"
        try:
            async with self._turns:
                result = await run_job(
                    _JOBS[source.format],
                    self._spec(campaign, source),
                    work_dir,
                    timeout_s=_IMPORT_TIMEOUT_S,
                    progress=lambda share, text: self._say(
                        campaign.campaign_id, f"{share:.0%} {text}"
                    ),
                    blame=Reason.DATASET_INVALID,
                )
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        log.info(
            "dataset imported",
            campaign=campaign.campaign_id,
            new=result["new"],
            known=result["known"],
            rejected=result["rejected"],
        )
        await asyncio.to_thread(self._keep, campaign, source, result)

    def _spec(self, campaign: CampaignRecord, source: DatasetSource) -> dict[str, Any]:
        return {
            "database_url": self._database_url,
            "blobs_dir": str(self._home.blobs_dir),
            "campaign_id": campaign.campaign_id,
            "files": [
                {"name": f.path, "path": str(self._blobs.path(f.digest))} for f in source.files
            ],
            "featurize": source.featurize,
            "device_id": source.device_id,
            "target": source.target,
            "now": self._clock(),
        }

    def _keep(
        self, campaign: CampaignRecord, source: DatasetSource, result: dict[str, Any]
    ) -> None:
        names = result.pop("trial_ids", None)
        files = {RESULT_FILE: json.dumps(result, indent=2, sort_keys=True).encode()}
        if names is not None:
            files[TRIALS_FILE] = "".join(f"{name}\n" for name in names).encode()
        artifacts = tuple(
            ArtifactRecord(path, self._blobs.put(content), len(content))
            for path, content in files.items()
        )
        trials: Counter[tuple[str, str]] = Counter()
        for progress in self._store.task_progress(campaign.campaign_id):
            trials[progress.task.key.target, progress.task.key.fingerprint] += progress.trials
        changes: dict[str, Any] = {
            "artifacts": artifacts,
            "groups": tuple(GroupRecord(*group, "", "") for group in sorted(trials)),
            "trials_wanted": max(trials.values(), default=0),
        }
        missing = source.featurize and self._store.count_unfeatured(campaign.campaign_id)
        if missing:
            changes |= {
                "state": CampaignState.TUNING,
                "activity": f"waiting for an agent to compute the features of {missing} trials",
            }
        else:
            changes |= {
                "state": CampaignState.DONE,
                "ended_at_unix_s": self._clock(),
                "activity": "",
            }
        with suppress(TuneFleetError):  # it was cancelled meanwhile
            self._store.update_campaign(campaign.campaign_id, [CampaignState.IMPORTING], **changes)
        self._bus.notify_work()

    def _say(self, campaign_id: str, activity: str) -> None:
        with suppress(TuneFleetError):
            self._store.update_campaign(campaign_id, [CampaignState.IMPORTING], activity=activity)
        self._bus.notify_campaign(campaign_id)
