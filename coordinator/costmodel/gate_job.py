"""The gate job: whether a version ranks held-out trials no worse than the current one.

Spec: ``{"rows": file of held-out rows, written by dataset.save, "onnx": path, "current": path of
the current version's ONNX file, or ""}``.

Result: ``{"promote": bool, "why": text, "metrics": {...}}``; metrics that do not exist, such as an
accuracy without pairs, are left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.costmodel import dataset
from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.judging import accuracy, held_out_accuracy, held_out_top
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.costmodel.promotion import decide
from coordinator.models.job import Progress, run_job
from tunefleet.machine_lock import MachineLock

_READ = 0.3
"""Share of the work that is done once the rows are read."""


def judge(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: MODEL_INVALID, one of the files cannot be run.
    """
    progress(0.0, "reading held-out trials")
    with MachineLock().busy():
        arrays = to_arrays(dataset.load(Path(spec["rows"])))
    new = _scores(Path(spec["onnx"]), arrays)
    metrics = {**held_out_accuracy(arrays, new), **held_out_top(arrays, new)}
    progress((1 + _READ) / 2, "judging the current version")
    current = None
    if spec["current"]:
        old = _scores(Path(spec["current"]), arrays)
        current = accuracy(arrays, old, arrays.held_out)
        metrics |= held_out_accuracy(arrays, old, "parent_heldout")
    judged = accuracy(arrays, new, arrays.held_out)
    decision = decide(judged, current)
    metrics["pairs"] = float(judged.pairs)
    known = {name: value for name, value in metrics.items() if not math.isnan(value)}
    return {"promote": decision.promote, "why": decision.why, "metrics": known}


def _scores(path: Path, arrays: RowArrays) -> Any:
    return OnnxModel(path).scores(arrays, np.arange(len(arrays)))


if __name__ == "__main__":
    sys.exit(run_job(judge))
