"""The export job: stored trials to a folder of Parquet files.

Spec: ``{"database_url", "blobs_dir", "out_dir", "campaign_ids", "targets", "device_ids",
"features": bool, "licence", "description"}``.

Result: ``{"files": [{"path", "name", "size_bytes"}], "stats": as coordinator.dataset.stats}``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coordinator.dataset.card import data_card
from coordinator.dataset.schema import (
    CARD_FILE,
    DEVICES_FILE,
    TRIALS_FILE,
    WORKLOADS_FILE,
    About,
    invalid,
)
from coordinator.dataset.stats import Stats
from coordinator.dataset.writing import trial_row, trials_writer, write_devices, write_workloads
from coordinator.models.job import Progress, run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import TrialFilter, WorkloadRecord
from tunefleet.errors import TuneFleetError

_TOLD_EVERY = 500


def export_dataset(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, no trial is meant.
    """
    store = open_store(str(spec["database_url"]))
    try:
        return _export(store, BlobStore(Path(spec["blobs_dir"])), spec, progress)
    finally:
        store.close()


def _export(
    store: Store, blobs: BlobStore, spec: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    out_dir = Path(spec["out_dir"])
    out_dir.mkdir(parents=True, exist_ok=True)
    about = About(str(spec.get("licence", "")), str(spec.get("description", "")))
    chosen = TrialFilter(
        tuple(spec["campaign_ids"]), tuple(spec["targets"]), tuple(spec["device_ids"])
    )
    progress(0.0, "counting trials")
    total = sum(count.trials for count in store.count_trials_by_verdict(chosen))
    if not total:
        raise invalid("there is no such trial: nothing to export")
    profiles = store.list_profiles()
    profile_of = {(p.device_id, p.profile.fingerprint()): p.profile.to_json() for p in profiles}
    stats = Stats()
    workloads: set[str] = set()
    places: set[tuple[str, str]] = set()
    with trials_writer(out_dir / TRIALS_FILE, about) as table:
        for record in store.trial_records(chosen):
            place = (record.device_id, record.key.fingerprint)
            table.add(trial_row(record, profile_of.get(place, ""), features=bool(spec["features"])))
            stats.add_trial(record)
            workloads.add(record.key.workload)
            places.add(place)
            if table.rows % _TOLD_EVERY == 0:
                done = min(table.rows / total, 1.0)
                progress(0.9 * done, f"writing trials, {table.rows} of {max(total, table.rows)}")
    progress(0.9, "writing workloads and devices")
    known = [w for w in store.list_workloads() if w.workload in workloads]
    write_workloads(out_dir / WORKLOADS_FILE, about, _with_modules(known, blobs))
    used = [p for p in profiles if (p.device_id, p.profile.fingerprint()) in places]
    write_devices(out_dir / DEVICES_FILE, about, used)
    result = stats.result(used)
    (out_dir / CARD_FILE).write_text(data_card(about, result, used), encoding="utf-8")
    files = (TRIALS_FILE, WORKLOADS_FILE, DEVICES_FILE, CARD_FILE)
    return {"files": [_described(out_dir / name) for name in files], "stats": result}


def _with_modules(
    workloads: list[WorkloadRecord], blobs: BlobStore
) -> Iterator[tuple[WorkloadRecord, str | None]]:
    for record in workloads:
        try:
            module = blobs.read(record.digest, verify=True).decode() if record.digest else None
        except TuneFleetError:
            # A blob that is gone or spoilt leaves its trials as they are.
            module = None
        yield record, module


def _described(path: Path) -> dict[str, Any]:
    return {"path": str(path), "name": path.name, "size_bytes": path.stat().st_size}


if __name__ == "__main__":
    sys.exit(run_job(export_dataset))
