"""The versions of a coordinator: takes in others', and puts them in and out of use."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from coordinator.costmodel.base_model import BASE_VERSION, base_folder
from coordinator.costmodel.stored_rows import save_stored_rows
from coordinator.jobs import JOBS_AT_ONCE, Progress, run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import ModelVersionRecord
from coordinator.state.store import Store
from tunefleet import __version__
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE

log = structlog.get_logger()

TRAINED = "v"
"""Names of versions that this coordinator trained begin with it, a number follows."""
UPLOADED = "u"
"""The same of versions that were sent: a name is never fought over while a training runs."""

_CHECK_TIMEOUT_S = 600.0
_GATE_TIMEOUT_S = 1800.0
"""Reading a million held-out trials takes some minutes."""
_METRICS = {
    "pca": "pca_heldout",
    "pca_by_task": "pca_heldout_by_task",
    "pca_resolved": "pca_heldout_resolved",
    "top1": "top1",
    "top5": "top5",
}
"""Figures of a model's folder, and what versions call them."""


class ModelRegistry:
    """Adds, promotes and rolls back versions."""

    def __init__(
        self, store: Store, blobs: BlobStore, home: Home, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._home = home
        self._clock = clock
        self._adding = asyncio.Lock()
        self._turns = asyncio.Semaphore(JOBS_AT_ONCE)

    def add_base(self, folder: Path) -> ModelVersionRecord | None:
        """Put the base model in use where there is no version for this release's features.

        Args:
            folder: of the base model; a release may ship none.

        Returns:
            What was added, if anything was.
        """
        versions = self._store.list_model_versions()
        if any(v.feature_schema == schema_digest() for v in versions):
            return None
        if not (folder / ONNX_FILE).is_file():
            return None
        try:
            about = json.loads((folder / ABOUT_FILE).read_text())
            if about["feature_schema"] != schema_digest():
                raise ValueError(f"it is for features of schema {about['feature_schema']}")  # noqa: TRY301
            record = ModelVersionRecord(
                version=_free_name(BASE_VERSION, [v.version for v in versions]),
                parent="",
                digest=self._blobs.put_file(folder / ONNX_FILE),
                checkpoint_digest=self._blobs.put_file(folder / CHECKPOINT_FILE),
                feature_schema=schema_digest(),
                promoted=True,
                why=_origin(folder),
                metrics=_metrics(about),
                trials=0,
                created_at_unix_s=self._clock(),
                training_s=0.0,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            # A coordinator does without; agents then choose at random until the first training.
            log.warning("base model not used", folder=str(folder), why=str(e))
            return None
        self._store.add_model_version(record)
        log.info("cost model promoted", version=record.version, why=record.why)
        return record

    async def upload(
        self, digest: str, checkpoint_digest: str, description: str, progress: Progress
    ) -> ModelVersionRecord:
        """Add a model that was made elsewhere, and do not use it yet.

        The same files sent again are the same version.

        Args:
            digest: blob with its ONNX file.
            checkpoint_digest: blob with its checkpoint.
            description: what its owner says of it.
            progress: told how far the checks are.

        Raises:
            TuneFleetError: BLOB_UNKNOWN, or MODEL_INVALID with the reason why.
        """
        spec = {
            "onnx": str(self._blobs.path(digest)),
            "checkpoint": str(self._blobs.path(checkpoint_digest)),
        }
        async with self._adding:
            versions = await asyncio.to_thread(self._store.list_model_versions)
            for known in versions:
                if (known.digest, known.checkpoint_digest) == (digest, checkpoint_digest):
                    return known
            result = await self._job(
                "coordinator.costmodel.check_job", spec, _CHECK_TIMEOUT_S, progress
            )
            said = f": {description}" if description else ""
            record = ModelVersionRecord(
                version=next_name(UPLOADED, [v.version for v in versions]),
                parent="",
                digest=digest,
                checkpoint_digest=checkpoint_digest,
                feature_schema=schema_digest(),
                promoted=False,
                why=f"uploaded{said}; not promoted yet",
                metrics={"onnx_max_diff": float(result["onnx_max_diff"])},
                trials=0,
                created_at_unix_s=self._clock(),
                training_s=0.0,
            )
            await asyncio.to_thread(self._store.add_model_version, record)
        log.info("cost model uploaded", version=record.version, named=str(result["named"])[:200])
        return record

    async def promote(self, version: str, *, force: bool, progress: Progress) -> ModelVersionRecord:
        """Put a version in use, if it ranks held-out trials no worse than the current one.

        Args:
            version: its name.
            force: put it in use however it ranks.
            progress: told how far judging is.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN; MODEL_INVALID, it is for other features;
                MODEL_RANKS_WORSE; MODEL_VERSION_STATE, another was promoted meanwhile.
        """
        record = await asyncio.to_thread(self._store.get_model_version, version)
        current = await asyncio.to_thread(self._store.current_model)
        if current is not None and current.version == version:
            return record
        if record.feature_schema != schema_digest():
            raise TuneFleetError(
                Reason.MODEL_INVALID,
                f"{version} is for features of schema {record.feature_schema}, of another release; "
                f"agents of this one extract {schema_digest()}",
                hint="Train it anew with this release: `tunefleet model train DATASET --out DIR`, "
                "then `tunefleet model promote DIR`.",
            )
        why, metrics = "promoted by force, without being judged", {}
        if not force:
            judged = await self._judge(record, current, progress)
            if not judged["promote"]:
                raise TuneFleetError(
                    Reason.MODEL_RANKS_WORSE, f"{version} is not promoted: {judged['why']}"
                )
            why, metrics = str(judged["why"]), judged["metrics"]
        before = "" if current is None else current.version
        promoted = await asyncio.to_thread(
            self._store.promote_model, version, why, instead_of=before, metrics=metrics
        )
        log.info("cost model promoted", version=version, instead_of=before, forced=force, why=why)
        return promoted

    async def roll_back(self, version: str) -> ModelVersionRecord:
        """Take the current version out of use and return the one that is current now.

        Raises:
            TuneFleetError: MODEL_VERSION_UNKNOWN, or MODEL_VERSION_STATE if it is not the current
                one or there is none to go back to.
        """
        current = await asyncio.to_thread(
            self._store.roll_back_model, version, "rolled back by a person"
        )
        log.info("cost model rolled back", version=version, to=current.version)
        return current

    async def _judge(
        self, record: ModelVersionRecord, current: ModelVersionRecord | None, progress: Progress
    ) -> dict[str, Any]:
        if current is not None and current.feature_schema != schema_digest():
            current = None  # of another release: it cannot be run beside
        rows = self._home.run_dir / f"held-out-{secrets.token_hex(4)}"
        spec = {
            "rows": str(rows),
            "onnx": str(self._blobs.path(record.digest)),
            "current": "" if current is None else str(self._blobs.path(current.digest)),
        }
        progress(0.0, "collecting held-out trials")
        try:
            await asyncio.to_thread(save_stored_rows, rows, self._store, held_out_only=True)
            return await self._job(
                "coordinator.costmodel.gate_job", spec, _GATE_TIMEOUT_S, progress
            )
        finally:
            await asyncio.to_thread(rows.unlink, missing_ok=True)

    async def _job(
        self, module: str, spec: Mapping[str, Any], timeout_s: float, progress: Progress
    ) -> dict[str, Any]:
        work_dir = self._home.run_dir / f"model-{secrets.token_hex(4)}"
        try:
            async with self._turns:
                return await run_job(
                    module,
                    spec,
                    work_dir,
                    timeout_s=timeout_s,
                    progress=progress,
                    blame=Reason.MODEL_INVALID,
                )
        finally:
            await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)


def next_name(prefix: str, known: Iterable[str]) -> str:
    """Return the prefix with a number above all that are taken."""
    taken = [int(m[1]) for name in known if (m := re.fullmatch(rf"{prefix}(\d+)", name))]
    return f"{prefix}{max(taken, default=0) + 1}"


def _free_name(name: str, known: list[str]) -> str:
    return next_name(f"{name}-", known) if name in known else name


def _origin(folder: Path) -> str:
    if folder == base_folder():
        return f"shipped with TuneFleet {__version__}"
    return f"given when the coordinator was started: {folder}"


def _metrics(about: Mapping[str, Any]) -> dict[str, float]:
    return {
        _METRICS[name]: float(figure["value"])
        for name, figure in about["metrics"].items()
        if name in _METRICS and figure["value"] is not None
    }
