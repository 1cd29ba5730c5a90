"""A network compiled with what a run knew at some second, as a campaign compiles its result.

Run as a job: ``{"prepared", "target", "records", "library"}``, the records as
:func:`coordinator.models.database.write_database` takes them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.models.job import Progress, run_job
from scripts.benches import quality_jobs
from scripts.benches.quality_curve import Run


def compile_known(run: Run, seconds: float, target: str, folder: Path) -> Path:
    """Compile a network with the best schedules known by then; tasks without keep their loops.

    Args:
        run: of our side.
        seconds: from its begin.
        target: canonical target.
        folder: for the library, which is taken from there where it was made before.

    Raises:
        JobError: a schedule cannot be applied or the network not compiled.
    """
    library = folder / f"{seconds:.3f}.so"
    if library.exists():
        return library
    records = [
        {
            "workload": event.workload,
            "workload_path": run.paths[event.workload],
            "trace": event.trace,
            "latency_s": event.latency_s,
        }
        for event in run.best(seconds).values()
    ]
    spec = {
        "prepared": run.prepared,
        "target": target,
        "records": records,
        "library": str(library),
    }
    quality_jobs.run_job("scripts.benches.quality_compile", spec, folder)
    return library


def _compile(spec: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    import tvm  # noqa: PLC0415

    from coordinator.models.build import apply_schedules, build_library  # noqa: PLC0415
    from coordinator.models.database import write_database  # noqa: PLC0415

    library = Path(spec["library"])
    prepared = tvm.ir.load_json(Path(spec["prepared"]).read_text())
    folder = library.parent / "database"
    committed = write_database(folder, spec["records"], spec["target"])
    if committed.rejected:
        raise RuntimeError(f"schedules that do not replay: {committed.rejected}")
    scheduled, applied = apply_schedules(prepared, committed.database, spec["target"])
    partial = library.with_suffix(".partial.so")
    build_library(scheduled, spec["target"], partial)
    partial.replace(library)
    return {"applied": len(applied)}


if __name__ == "__main__":
    sys.exit(run_job(_compile))
