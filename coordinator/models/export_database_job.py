"""The job that writes stored trials as a MetaSchedule database.

Spec: as of :mod:`coordinator.dataset.export_job`, with ``"best"`` (fastest schedules of each
workload; 0 for all) in place of what only Parquet has. Result: likewise.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordinator.dataset.schema import invalid
from coordinator.dataset.stats import Stats
from coordinator.models.database import write_database
from coordinator.models.import_database_job import RECORDS, WORKLOADS
from coordinator.models.job import Progress, run_job
from coordinator.state.blobs import BlobStore
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import TrialCount, TrialFilter, TrialRecord
from tunefleet.machine_lock import MachineLock


def export_database(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, no such trial can be written, or records of two targets
            or hardwares would mix.
    """
    out_dir = Path(spec["out_dir"])
    chosen = TrialFilter(
        tuple(spec["campaign_ids"]), tuple(spec["targets"]), tuple(spec["device_ids"])
    )
    store = open_store(str(spec["database_url"]))
    try:
        progress(0.0, "choosing schedules")
        target = _only_target(store.count_trials_by_verdict(chosen))
        records = _fastest(store, chosen, int(spec["best"]))
        blobs = BlobStore(Path(spec["blobs_dir"]))
        digests = {w.workload: w.digest for w in store.list_workloads() if w.digest}
        written = [r for r in records if blobs.has(digests.get(r.key.workload, "0" * 64))]
        if not written:
            raise invalid("the modules of these workloads are not known: nothing to export")
        progress(0.1, f"writing {len(written)} schedules")
        committed = write_database(
            out_dir,
            [
                {
                    "workload": r.key.workload,
                    "workload_path": str(blobs.path(digests[r.key.workload])),
                    "trace": r.trial.trace,
                    "latency_s": r.trial.latency_s,
                    "samples_s": r.trial.samples_s,
                }
                for r in written
            ],
            target,
            section=MachineLock().busy,
        )
        stats = Stats()
        for record in written:
            if record.key.workload not in committed.rejected:
                stats.add_trial(record)
        result = stats.result(store.list_profiles())
    finally:
        store.close()
    files = [out_dir / name for name in (WORKLOADS, RECORDS)]
    return {
        "files": [{"path": str(f), "name": f.name, "size_bytes": f.stat().st_size} for f in files],
        "stats": result,
    }


def _only_target(counts: Sequence[TrialCount]) -> str:
    """Return the one target of what is exported; a database does not keep two apart."""
    if not counts:
        raise invalid("there is no such trial: nothing to export")
    places = {(count.key.target, count.key.fingerprint) for count in counts}
    if len(places) > 1:
        raise invalid(
            f"these trials are of {len(places)} targets or hardwares, which a MetaSchedule "
            "database would mix: name one with --device and --target"
        )
    return next(iter(places))[0]


def _fastest(store: Store, chosen: TrialFilter, best: int) -> list[TrialRecord]:
    """Return each workload's measured schedules, the fastest first, each program once."""
    by_workload: dict[str, dict[str, TrialRecord]] = {}
    for record in store.trial_records(chosen):
        latency_s = record.trial.latency_s
        if latency_s is None:
            continue
        same = by_workload.setdefault(record.key.workload, {})
        known = same.get(record.trial.candidate)
        if known is None or latency_s < (known.trial.latency_s or latency_s):
            same[record.trial.candidate] = record
    return [
        record
        for same in by_workload.values()
        for record in sorted(same.values(), key=lambda r: r.trial.latency_s or 0.0)[: best or None]
    ]


if __name__ == "__main__":
    sys.exit(run_job(export_database))
