"""The compile job: a prepared network and its best schedules to modules that run.

Spec: ``{"prepared": path, "untuned": path, "target": canonical target JSON, "records": path of a
JSON list of {"workload", "workload_path", "trace", "latency_s"}, "out_dir"}``; ``untuned`` may be
null, and is so in the result then.

Result: ``{"tuned": path, "untuned": path, "database": folder, "run_script": path, "applied": n,
"unscheduled": [workload], "missing": [workload], "rejected": {workload: why}, "seconds": s}``.
``applied`` counts workloads whose schedule came from the database, ``unscheduled`` are tasks whose
best record is the program as it is, ``missing`` are tasks of the network without a usable record.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from coordinator.models.build import apply_schedules, build_library
from coordinator.models.database import write_database
from coordinator.models.handover import run_script
from coordinator.models.job import Progress, run_job
from coordinator.models.tasks import tunable_tasks
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock


def compile_model(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: INTERNAL where a schedule that is in the database was not applied.
    """
    started = time.monotonic()
    out_dir = Path(spec["out_dir"])
    out_dir.mkdir(parents=True, exist_ok=True)
    target = str(spec["target"])
    prepared = tvm.ir.load_json(Path(spec["prepared"]).read_text())
    records = json.loads(Path(spec["records"]).read_text())
    tasks = {task.workload for task in tunable_tasks(prepared, target)}

    lock = MachineLock()
    progress(0.1, "writing the database")
    with lock.busy():
        committed = write_database(out_dir / "database", records, target)
        scheduled, applied = apply_schedules(prepared, committed.database, target)
    _check(applied, committed.workloads, tasks)

    progress(0.3, "compiling the tuned module")
    tuned = out_dir / "tuned.so"
    with lock.busy():
        build_library(scheduled, target, tuned)
    untuned = None if spec["untuned"] is None else out_dir / "untuned.so"
    if untuned is not None:
        progress(0.7, "compiling the untuned module")
        with lock.busy():
            build_library(tvm.ir.load_json(Path(spec["untuned"]).read_text()), target, untuned)
    script = out_dir / "run.py"
    script.write_text(run_script(prepared))
    return {
        "tuned": str(tuned),
        "untuned": None if untuned is None else str(untuned),
        "database": str(out_dir / "database"),
        "run_script": str(script),
        "applied": len(applied),
        "unscheduled": sorted(tasks & committed.unscheduled),
        "missing": sorted(tasks - applied - committed.unscheduled),
        "rejected": committed.rejected,
        "seconds": time.monotonic() - started,
    }


def _check(applied: set[str], committed: set[str], tasks: set[str]) -> None:
    """Make sure that what was scheduled is exactly what the records are for."""
    lost = (committed & tasks) - applied
    foreign = applied - committed
    if lost or foreign:
        message = (
            f"the tuned module is not what was measured: schedules not applied for "
            f"{sorted(lost)}, functions scheduled without a record {sorted(foreign)}"
        )
        raise TuneFleetError(Reason.INTERNAL, message)


if __name__ == "__main__":
    sys.exit(run_job(compile_model))
