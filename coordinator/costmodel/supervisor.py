"""Decides when to train, has it done in a process of its own, and publishes what came of it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog

from coordinator.costmodel.registry import TRAINED, next_name
from coordinator.costmodel.stored_rows import save_stored_rows
from coordinator.jobs import run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import CampaignPurpose, CampaignState, ModelVersionRecord
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest

log = structlog.get_logger()

_POLL_S = 2.0
"""How often new trials are counted: short beside a round."""

FIRST_TRAINING_TRIALS = 96
"""Trials before the first training: fewer leave too few held-out pairs to judge a model by."""

FIRST_FINE_TUNING_TRIALS = 144
"""The same where there is a model already, which must not be outdone by chance: what begins with
four trials of every task has few pairs to compare it on, and training takes cores from building."""

GROWTH = 0.5
"""Share of new trials that makes another training worth its time."""

_TRAINING_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class _Task:
    """A training that was prepared."""

    spec: dict[str, Any]
    current: str
    """The version that was current, and that the new one must not be worse than."""
    parent: str
    """The same, or empty where it cannot be built on."""
    trials: int


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
                if trials >= max(await asyncio.to_thread(self._least), trained_on * (1 + GROWTH)):
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

    def _least(self) -> int:
        known = self._store.current_model() is not None
        return FIRST_FINE_TUNING_TRIALS if known else FIRST_TRAINING_TRIALS

    def _trained_on(self) -> int:
        # Versions that were shipped or sent count no trials of ours.
        return max((v.trials for v in self._store.list_model_versions()), default=0)

    async def _train(self) -> None:
        versions = await asyncio.to_thread(self._store.list_model_versions)
        version = next_name(TRAINED, [v.version for v in versions])
        work_dir = self._home.run_dir / f"train-{version}"
        began = self._clock()
        try:
            task = await asyncio.to_thread(self._prepare, version, work_dir)
            result = await run_job(
                "coordinator.costmodel.train_job",
                task.spec,
                work_dir,
                timeout_s=_TRAINING_TIMEOUT_S,
            )
            record = await asyncio.to_thread(self._publish, version, task, began, result)
            log.info(
                "trained cost model",
                version=version,
                promoted=record.promoted,
                why=record.why,
                seconds=round(record.training_s, 1),
            )
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)

    def _prepare(self, version: str, work_dir: Path) -> _Task:
        work_dir.mkdir(parents=True, exist_ok=True)
        rows = work_dir / "rows"
        save_stored_rows(rows, self._store)
        current = parent = self._store.current_model()
        if parent is not None and parent.feature_schema != schema_digest():
            parent = None  # of another release: there is nothing to go on from
        spec = {
            "rows": str(rows),
            "parent_checkpoint": str(self._blobs.path(parent.checkpoint_digest)) if parent else "",
            "out_dir": str(work_dir / "out"),
            "version": version,
            "seed": 0,
            "threads": self._threads,
        }
        return _Task(
            spec=spec,
            current="" if current is None else current.version,
            parent="" if parent is None else parent.version,
            trials=self._store.count_trials(),
        )

    def _publish(
        self, version: str, task: _Task, began: float, result: dict[str, Any]
    ) -> ModelVersionRecord:
        record = ModelVersionRecord(
            version=version,
            parent=task.parent,
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
            trials=task.trials,
            created_at_unix_s=self._clock(),
            training_s=self._clock() - began,
        )
        try:
            self._store.add_model_version(record, instead_of=task.current)
        except TuneFleetError as e:
            if e.reason is not Reason.MODEL_VERSION_STATE:
                raise
            record = replace(record, promoted=False, why=e.message)
            self._store.add_model_version(record)
        return record
