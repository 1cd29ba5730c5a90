"""Exports stored trials for whoever asks, in a job of its own."""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.dataset.stats import Stats
from coordinator.jobs import JOBS_AT_ONCE, Progress, run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import ArtifactRecord, DatasetFormat
from coordinator.state.store import Store
from coordinator.state.trial_records import TrialFilter
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.targets import canonical_target

_EXPORT_TIMEOUT_S = 4 * 3600.0
"""A million trials take a quarter of an hour on a quiet machine."""


_JOBS = {
    DatasetFormat.PARQUET: "coordinator.dataset.export_job",
    DatasetFormat.METASCHEDULE: "coordinator.models.export_database_job",
}


@dataclass(frozen=True)
class Exported:
    """Files of an export, as blobs, and what they hold."""

    files: tuple[ArtifactRecord, ...]
    stats: dict[str, Any]


class Exporter:
    """Counts and exports trials."""

    def __init__(self, store: Store, blobs: BlobStore, home: Home, database_url: str) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._database_url = database_url
        self._turns = asyncio.Semaphore(JOBS_AT_ONCE)

    def choose(
        self, campaigns: Sequence[str], targets: Sequence[str], devices: Sequence[str]
    ) -> TrialFilter:
        """Resolve what people call campaigns, targets and devices.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, DEVICE_UNKNOWN or INVALID_ARGUMENT.
        """
        try:
            canonical = tuple(canonical_target(target) for target in targets)
        except ValueError as e:
            raise TuneFleetError(Reason.INVALID_ARGUMENT, str(e)) from e
        return TrialFilter(
            tuple(self._store.get_campaign(name).campaign_id for name in campaigns),
            canonical,
            tuple(self._store.get_device(name).device_id for name in devices),
        )

    def stats(self, chosen: TrialFilter) -> dict[str, Any]:
        """Count trials; see :meth:`coordinator.dataset.stats.Stats.result`."""
        stats = Stats()
        for count in self._store.count_trials_by_verdict(chosen):
            stats.add(count)
        return stats.result(self._store.list_profiles())

    async def export(
        self, chosen: TrialFilter, options: dict[str, Any], progress: Progress
    ) -> Exported:
        """Write trials to files and keep these as blobs.

        Args:
            chosen: the trials.
            options: ``format``, and what its job's spec has besides.
            progress: told how far it is.

        Raises:
            TuneFleetError: DATASET_INVALID where there is no such trial.
        """
        work_dir = self._home.run_dir / f"export-{secrets.token_hex(4)}"
        spec = options | {
            "database_url": self._database_url,
            "blobs_dir": str(self._home.blobs_dir),
            "out_dir": str(work_dir / "out"),
            "campaign_ids": chosen.campaign_ids,
            "targets": chosen.targets,
            "device_ids": chosen.device_ids,
        }
        try:
            async with self._turns:
                result = await run_job(
                    _JOBS[options["format"]],
                    spec,
                    work_dir,
                    timeout_s=_EXPORT_TIMEOUT_S,
                    progress=progress,
                )
            files = await asyncio.to_thread(self._keep, result["files"])
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
        return Exported(files, result["stats"])

    def _keep(self, files: list[dict[str, Any]]) -> tuple[ArtifactRecord, ...]:
        return tuple(
            ArtifactRecord(f["name"], self._blobs.put_file(Path(f["path"])), f["size_bytes"])
            for f in files
        )
