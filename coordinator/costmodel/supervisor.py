"""Decides when to train, has it done in a process of its own, and publishes what came of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from coordinator.costmodel import dataset
from coordinator.jobs import run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import CampaignPurpose, CampaignState, ModelVersionRecord
from coordinator.state.store import Store
from coordinator.state.trial_records import TrainingRow
from tunefleet.errors import TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.trials import Verdict

log = structlog.get_logger()

_POLL_S = 2.0
"""How often new trials are counted: short beside a round."""

FIRST_TRAINING_TRIALS = 96
"""Trials before the first training: fewer leave too few held-out pairs to judge a model by."""

GROWTH = 0.5
"""Share of new trials that makes another training worth its time."""

_TRAINING_TIMEOUT_S = 3600.0


class TrainingSupervisor:
    """Trains the cost model as trials arrive."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        home: Home,
        threads: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._threads = threads
        self._clock = clock

    async def run(self) -> None:
        """Train again and again until cancelled. A training that fails is logged and left."""
        trained_on = await asyncio.to_thread(self._trained_on)
        while True:
            try:
                trials = await asyncio.to_thread(self._wanted)
                if trials >= max(FIRST_TRAINING_TRIALS, trained_on * (1 + GROWTH)):
                    # Counted as done even if it fails: the same trials would fail it again.
                    trained_on = trials
                    await self._train()
            except TuneFleetError as e:
                log.warning("training failed", why=e.message)
            except Exception:  # a full disk, say: it may pass, and must not end the server
                log.exception("training failed")
            await asyncio.sleep(_POLL_S)

    def _wanted(self) -> int:
        """Return how many trials there are to train on, or 0 where nobody would use the model.

        While all that runs is collections, training would only disturb their measurements.
        """
        running = self._store.list_campaigns([CampaignState.IMPORTING, CampaignState.TUNING])
        if running and all(c.spec.purpose is CampaignPurpose.COLLECT for c in running):
            return 0
        return self._store.count_trials()

    def _trained_on(self) -> int:
        versions = self._store.list_model_versions()
        return versions[0].trials if versions else 0

    async def _train(self) -> None:
        version = f"v{len(await asyncio.to_thread(self._store.list_model_versions)) + 1}"
        work_dir = self._home.run_dir / f"train-{version}"
        began = self._clock()
        try:
            spec, trials = await asyncio.to_thread(self._prepare, version, work_dir)
            result = await run_job(
                "coordinator.costmodel.train_job",
                spec,
                work_dir,
                timeout_s=_TRAINING_TIMEOUT_S,
            )
            record = await asyncio.to_thread(
                self._publish, version, spec["parent"], trials, began, result
            )
            log.info(
                "trained cost model",
                version=version,
                promoted=record.promoted,
                why=record.why,
                seconds=round(record.training_s, 1),
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)

    def _prepare(self, version: str, work_dir: Path) -> tuple[dict[str, Any], int]:
        work_dir.mkdir(parents=True, exist_ok=True)
        rows = work_dir / "rows"
        dataset.save(rows, map(_dataset_row, self._store.training_rows()))
        parent = self._store.current_model()
        spec = {
            "rows": str(rows),
            "parent": parent.version if parent else "",
            "parent_checkpoint": str(self._blobs.path(parent.checkpoint_digest)) if parent else "",
            "out_dir": str(work_dir / "out"),
            "version": version,
            "seed": 0,
            "threads": self._threads,
        }
        return spec, self._store.count_trials()

    def _publish(
        self, version: str, parent: str, trials: int, began: float, result: dict[str, Any]
    ) -> ModelVersionRecord:
        record = ModelVersionRecord(
            version=version,
            parent=parent,
            digest=self._blobs.put_file(Path(result["onnx"])),
            checkpoint_digest=self._blobs.put_file(Path(result["checkpoint"])),
            feature_schema=schema_digest(),
            promoted=bool(result["promote"]),
            why=str(result["why"]),
            metrics={
                name: float(value)
                for name, value in result["metrics"].items()
                if isinstance(value, int | float)
            },
            trials=trials,
            created_at_unix_s=self._clock(),
            training_s=self._clock() - began,
        )
        self._store.add_model_version(record)
        return record


def _dataset_row(row: TrainingRow) -> dataset.TrainingRow:
    return dataset.TrainingRow(
        workload=row.key.workload,
        target=row.key.target,
        device_fingerprint=row.key.fingerprint,
        hardware=list(row.hardware),
        candidate=row.candidate,
        stores=row.stores,
        features=row.features,
        latency_s=row.latency_s,
        noise=row.noise,
        verdict=Verdict(row.verdict),
    )
