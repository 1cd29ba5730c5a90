"""The import job: a dataset's Parquet files to stored trials.

Spec: ``{"database_url", "blobs_dir", "campaign_id", "files": [{"path", "name"}], "featurize": bool,
"now": unix seconds}``.

Result: ``{"new": n, "known": n, "rejected": n, "refusals": {why: n}, "rejected_names": [name],
"unfeatured": n, "without_module": n, "stats": as coordinator.dataset.stats of what was readable}``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.confinement import DATASET_MEMORY_BYTES
from coordinator.dataset.intake import Intake
from coordinator.dataset.reading import (
    Parts,
    Refused,
    Table,
    open_trials,
    read_devices,
    read_trials,
    read_workloads,
)
from coordinator.dataset.schema import DEVICES_FILE, WORKLOADS_FILE, invalid
from coordinator.models.job import Progress, run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.sql import open_store
from tunefleet.errors import Reason
from tunefleet.features import stores_digest
from tunefleet.machine_lock import MachineLock

_CPU_S = 8 * 3600
"""Twice what the longest import may last."""


def import_dataset(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, a file cannot be used as a whole.
    """
    parts = _parts(spec["files"])
    tables = [open_trials(path) for path in parts.trials]
    featurize = bool(spec["featurize"])
    usable = [_usable_features(table, featurize=featurize) for table in tables]
    store = open_store(str(spec["database_url"]))
    try:
        blobs = BlobStore(Path(spec["blobs_dir"]))
        intake = Intake(store, str(spec["campaign_id"]), float(spec["now"]))
        progress(0.0, "reading workloads and devices")
        if parts.devices is not None:
            intake.profiles.update({p.device_id: p for p in read_devices(parts.devices)})
        if parts.workloads is not None:
            for workload, module in read_workloads(parts.workloads):
                digest = blobs.put(module.encode()) if module else ""
                intake.add_workload(workload, digest)
        total = sum(table.rows for table in tables)
        for table, features in zip(tables, usable, strict=True):
            _take_in(table, features, intake, total, progress)
    finally:
        store.close()
    return intake.result()


def _take_in(table: Table, features: bool, intake: Intake, total: int, progress: Progress) -> None:
    lock = MachineLock()
    rows = read_trials(table, features=features)
    while True:
        with lock.busy():
            batch = next(rows, None)
            if batch is None:
                return
            intake.take([row for row in batch if not isinstance(row, Refused)])
        for row in batch:
            if isinstance(row, Refused):
                intake.refuse(row.name, row.why)
        progress(intake.seen / max(total, 1), f"storing trials, {intake.seen} of {total}")


def _usable_features(table: Table, *, featurize: bool) -> bool:
    """Return whether a table's features fit this release."""
    schema = table.about.feature_schema
    if schema == stores_digest():
        return True
    if not featurize:
        raise invalid(
            f"the features are of schema {schema[:20] or '(none)'}, this release has "
            f"{stores_digest()}: import with --featurize to have an agent compute them anew"
        )
    return False


def _parts(files: list[Mapping[str, str]]) -> Parts:
    """Tell the tables apart by their names; the paths are those of blobs."""
    by_name = {file["name"]: Path(file["path"]) for file in files}
    workloads, devices = by_name.pop(WORKLOADS_FILE, None), by_name.pop(DEVICES_FILE, None)
    trials = [by_name[name] for name in sorted(by_name) if name.endswith(".parquet")]
    if not trials:
        raise invalid("the dataset has no Parquet file with trials")
    return Parts(tuple(trials), workloads, devices)


if __name__ == "__main__":
    sys.exit(
        run_job(
            import_dataset,
            blame=Reason.DATASET_INVALID,
            memory_bytes=DATASET_MEMORY_BYTES,
            cpu_s=_CPU_S,
        )
    )
