"""Train a model version in a process of its own.

``python -m coordinator.costmodel.train_job --spec FILE.json --out FILE.json``

Spec (paths are strings; those marked * may be left out)::

    {"rows": file written by dataset.save, "parent_checkpoint": file or "", "out_dir": folder,
     "version": name, "seed"*: int, "threads"*: int,
     "noise"*: smallest relative difference of latencies that counts}

Result, with exit code 0::

    {"onnx": path, "checkpoint": path, "promote": bool, "why": text, "metrics": {...},
     "onnx_max_diff": number, "seconds": number}

Otherwise ``{"error": text}`` with exit code 1. Progress goes to standard output as JSON lines
``{"progress": 0 to 1, "message": text}``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from coordinator.costmodel.train_spec import TrainSpec
from tunefleet.machine_lock import MachineLock


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    parser = argparse.ArgumentParser(description="Train a cost model version.")
    parser.add_argument("--spec", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    # Spinning OpenMP threads that lose their core to another process make a step 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        result = _run(TrainSpec.read(arguments.spec))
    except Exception as e:
        _write(arguments.out, {"error": f"{e}" or type(e).__name__})
        return 1
    _write(arguments.out, result)
    return 0


def _run(spec: TrainSpec) -> dict[str, Any]:
    lock = MachineLock()
    started = time.monotonic()
    _progress(0.0, "starting")
    with lock.busy():
        from coordinator.costmodel import version  # noqa: PLC0415 - torch, only now and niced
    result = version.make(spec, lock, _progress)
    return {**result, "seconds": time.monotonic() - started}


def _progress(share: float, message: str) -> None:
    sys.stdout.write(json.dumps({"progress": round(share, 4), "message": message}) + "\n")
    sys.stdout.flush()


def _write(path: Path, result: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(result, allow_nan=False))
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
