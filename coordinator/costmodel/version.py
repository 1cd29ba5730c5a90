"""Make one model version: train, judge against the current one, export."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from coordinator.costmodel import dataset
from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.export import export
from coordinator.costmodel.judging import accuracy, held_out_accuracy, held_out_top
from coordinator.costmodel.loss import LossConfig
from coordinator.costmodel.promotion import decide
from coordinator.costmodel.train import Progress, TrainConfig, fit, score
from tunefleet.machine_lock import MachineLock

if TYPE_CHECKING:
    from coordinator.costmodel.train_spec import TrainSpec

_TRAINING_FROM, _TRAINING_TO = 0.05, 0.9
"""The part of the progress bar that is training."""
_REFIT_GROWTH = 2.0
"""Constants from a campaign's first hundred trials miss the tasks that come later. Doubling keeps
the cost of all refits together below that of the last one twice over."""


def make(spec: TrainSpec, lock: MachineLock, progress: Progress) -> dict[str, Any]:
    """Train, judge and export a version.

    Args:
        spec: what to train on and where to write ``model.onnx`` and ``checkpoint.npz``.
        lock: all computing happens inside its ``busy()``.
        progress: told the share done.

    Returns:
        The job's result as described in ``train_job``, but ``seconds``; numbers that do not exist,
        such as an accuracy without pairs, are ``None``.

    Raises:
        FileNotFoundError, ValueError: rows or parent cannot be used.
        ExportError: the ONNX file does not equal the torch model.
    """
    with lock.busy():
        arrays = to_arrays(dataset.load(spec.rows))
        parent = None if spec.parent_checkpoint is None else Checkpoint.load(spec.parent_checkpoint)
    config = TrainConfig(seed=spec.seed, threads=spec.threads, loss=LossConfig(spec.noise))
    refit = parent is not None and outgrown(parent, int((~arrays.held_out).sum()))
    trained = fit(
        arrays,
        None if refit else parent,
        config,
        lambda share, message: progress(
            _TRAINING_FROM + (_TRAINING_TO - _TRAINING_FROM) * share, message
        ),
        lock,
    )
    progress(_TRAINING_TO, "judging")
    scores = score(trained.model, arrays, lock)
    new = accuracy(arrays, scores, arrays.held_out)
    current, parent_metrics = None, {}
    if parent is not None:
        parent_scores = score(parent.build(), arrays, lock)
        current = accuracy(arrays, parent_scores, arrays.held_out)
        parent_metrics = held_out_accuracy(arrays, parent_scores, "parent_heldout")
    decision = decide(new, current)
    progress(0.95, "exporting")
    spec.out_dir.mkdir(parents=True, exist_ok=True)
    with lock.busy():
        exported = export(trained.model, spec.out_dir / "model.onnx", spec.version, spec.seed)
        checkpoint = spec.out_dir / "checkpoint.npz"
        parent_version = "" if parent is None or refit else parent.version
        Checkpoint.of(trained.model, spec.version, parent_version, trained.rows_normalised).save(
            checkpoint
        )
    metrics = {
        "rows": len(arrays),
        "rows_trained": trained.rows_trained,
        "rows_failed": int(np.isnan(arrays.log_latency).sum()),
        "tasks": len({key[:2] for key in arrays.group_keys}),
        "devices": len({key[2] for key in arrays.group_keys}),
        "pairs": new.pairs,
        "pca_train": accuracy(arrays, scores, ~arrays.held_out).by_records,
        **held_out_accuracy(arrays, scores),
        **parent_metrics,
        **held_out_top(arrays, scores),
        "refit": int(refit),
        "steps": trained.steps,
        "loss": trained.final_loss,
    }
    progress(1.0, decision.why)
    return {
        "onnx": str(exported.path),
        "checkpoint": str(checkpoint),
        "promote": decision.promote,
        "why": decision.why,
        "metrics": {name: _json_number(value) for name, value in metrics.items()},
        "onnx_max_diff": exported.max_diff,
    }


def outgrown(parent: Checkpoint, rows: int) -> bool:
    """Tell whether there is so much more data than a parent's normalisation constants were fitted
    on that training anew, with new constants, beats going on from its weights.

    Args:
        parent: the current version.
        rows: rows to train on now.
    """
    return rows >= _REFIT_GROWTH * parent.rows_normalised


def _json_number(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value
