"""The stats job: what a dataset's files hold, without a coordinator. Every row is checked.

Spec: ``{"place": path of a folder or of a file with trials}``.

Result: as coordinator.dataset.stats, with ``"about"`` (what the files say of themselves),
``"rejected"`` (rows that an import would refuse) and ``"refusals"`` (``{why: rows}``).
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.confinement import DATASET_MEMORY_BYTES
from coordinator.dataset.reading import (
    Refused,
    describe,
    find_parts,
    open_trials,
    read_devices,
    read_trials,
)
from coordinator.dataset.stats import Stats
from coordinator.models.job import Progress, run_job
from tunefleet.errors import Reason
from tunefleet.machine_lock import MachineLock


def dataset_stats(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID.
    """
    parts = find_parts(Path(spec["place"]))
    tables = [open_trials(path) for path in parts.trials]
    total, seen = sum(table.rows for table in tables), 0
    stats = Stats()
    refusals: Counter[str] = Counter()
    lock = MachineLock()
    for table in tables:
        rows = read_trials(table)
        while True:
            with lock.busy():
                batch = next(rows, None)
                if batch is None:
                    break
                for row in batch:
                    if isinstance(row, Refused):
                        refusals[row.why] += 1
                    else:
                        stats.add_trial(row[0])
            seen += len(batch)
            progress(seen / max(total, 1), f"reading trials, {seen} of {total}")
    profiles = list(read_devices(parts.devices)) if parts.devices else []
    return {
        **stats.result(profiles),
        "about": describe(parts),
        "rejected": sum(refusals.values()),
        "refusals": dict(refusals.most_common(20)),
    }


if __name__ == "__main__":
    sys.exit(
        run_job(dataset_stats, blame=Reason.DATASET_INVALID, memory_bytes=DATASET_MEMORY_BYTES)
    )
