"""The functions job: which workload each function of a prepared network is of.

Spec: ``{"prepared": path}``. Result: ``{"functions": {name: workload}}``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tvm

from coordinator.models.build import function_workloads
from coordinator.models.job import Progress, run_job
from tunefleet.machine_lock import MachineLock


def name_functions(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result."""
    progress(0.0, "matching functions with tasks")
    with MachineLock().busy():
        prepared = tvm.ir.load_json(Path(spec["prepared"]).read_text())
        return {"functions": function_workloads(prepared)}


if __name__ == "__main__":
    sys.exit(run_job(name_functions))
