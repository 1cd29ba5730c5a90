"""A network compiled with what a run knew at some second, by the job that compiles a campaign's."""

from __future__ import annotations

import json
from pathlib import Path

from scripts.benches.harness import note
from scripts.benches.quality_curve import Run
from scripts.benches.quality_jobs import run_job


def compile_known(run: Run, seconds: float, target: str, folder: Path) -> Path:
    """Compile a network with the best schedules known by then; tasks without keep their loops.

    Args:
        run: of our side.
        seconds: from its begin.
        target: canonical target.
        folder: for the library, which is taken from there where it was made before.

    Raises:
        JobError: it could not be compiled.
    """
    # Between improvements nothing changes.
    known_s = max(run.changes(seconds), default=0.0)
    library = folder / f"{known_s:.3f}.so"
    if library.exists():
        return library
    records = [
        {
            "workload": event.workload,
            "workload_path": run.paths[event.workload],
            "trace": event.trace,
            "latency_s": event.latency_s,
        }
        for event in run.best(known_s).values()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.json").write_text(json.dumps(records))
    spec = {
        "prepared": run.prepared,
        "untuned": None,
        "target": target,
        "records": str(folder / "records.json"),
        "out_dir": str(folder / "compiled"),
    }
    made = run_job("coordinator.models.compile_job", spec, folder)
    if made["rejected"]:
        # A campaign's result does without these, too.
        note(f"time-to-quality: schedules that do not replay: {made['rejected']}")
    Path(made["tuned"]).replace(library)
    return library
