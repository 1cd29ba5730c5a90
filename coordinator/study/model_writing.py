"""Writes a trained model's folder: exported, judged as agents will use it, and described."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.export import ExportError, export
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.costmodel.train import TrainConfig, TrainedModel
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Evaluation, evaluate
from coordinator.study.figures import figures
from coordinator.study.model_card import model_card
from coordinator.study.model_folder import learned_from, read_about
from coordinator.study.opening import Opened
from tunefleet import __version__
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, CARD_FILE, CHECKPOINT_FILE, FORMAT, ONNX_FILE

_EXPORTED = 0.4
"""Share of the work that is done once the file is exported."""


@dataclass(frozen=True)
class Training:
    """What was trained, from what and how."""

    spec: Mapping[str, Any]
    """Of the training job."""
    opened: Opened
    parent: Checkpoint | None
    config: TrainConfig
    trained: TrainedModel
    processes: int
    seconds: float

    @property
    def corpus(self) -> Corpus:
        """Return what was learned from, held-out trials included."""
        return self.opened.corpus

    @property
    def out_dir(self) -> Path:
        """Return the model's folder, whose name is the model's."""
        return Path(self.spec["out_dir"])


def write_model(
    training: Training, work: Path, progress: Callable[[float, str], None]
) -> dict[str, Any]:
    """Write a model's files.

    Args:
        training: what was trained.
        work: folder on the same disk as the model's; removed at the end.
        progress: told the share done and what is being done.

    Returns:
        What ``model.json`` holds, and the ``files``.

    Raises:
        TuneFleetError: INTERNAL, the ONNX file does not compute what the model computes.
    """
    progress(0.0, "exporting")
    onnx_max_diff = _export(training, work)
    corpus = training.corpus
    scores = OnnxModel(work / ONNX_FILE, training.config.threads, (corpus.features,)).scores(
        corpus.arrays,
        np.arange(len(corpus)),
        lambda share, message: progress(_EXPORTED + (1 - _EXPORTED) * share, message),
    )
    held_out = corpus.arrays.held_out
    judged = _evaluated(corpus, np.flatnonzero(held_out), scores)
    learned = _evaluated(corpus, np.flatnonzero(~held_out), scores)
    about = {
        "tunefleet_model": FORMAT,
        "name": training.out_dir.name,
        "release": __version__,
        "created_unix_s": time.time(),
        "features": corpus.features.name,
        "feature_schema": corpus.features.schema(),
        "parameters": sum(p.numel() for p in training.trained.model.parameters()),
        "files": {
            file: {"sha256": _sha256(work / file), "size_bytes": (work / file).stat().st_size}
            for file in (ONNX_FILE, CHECKPOINT_FILE)
        },
        "onnx_max_diff": onnx_max_diff,
        "metrics": {} if judged is None else figures(judged.intervals()),
        "metrics_trained": {} if learned is None else figures(learned.intervals()),
        "held_out": None if judged is None else _counts(judged),
        "dataset": _dataset(training),
        "training": _effort(training),
        **_lineage(training),
    }
    (work / CARD_FILE).write_text(model_card(about, _command(training.spec)), encoding="utf-8")
    (work / ABOUT_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    # What tells that the model is there comes last.
    names = (ONNX_FILE, CHECKPOINT_FILE, CARD_FILE, ABOUT_FILE)
    for name in names:
        (work / name).replace(training.out_dir / name)
    shutil.rmtree(work)
    progress(1.0, "")
    return {**about, "files": [str(training.out_dir / name) for name in names]}


def _export(training: Training, work: Path) -> float:
    """Write ONNX file and checkpoint; returns how far the former is from the model."""
    trained, name, parent = training.trained, training.out_dir.name, training.parent
    try:
        with MachineLock().busy():
            exported = export(trained.model, work / ONNX_FILE, name, training.config.seed)
    except ExportError as e:
        raise TuneFleetError(Reason.INTERNAL, f"the trained model cannot be exported: {e}") from e
    version = "" if parent is None else parent.version
    checkpoint = Checkpoint.of(trained.model, name, version, trained.rows_normalised)
    checkpoint.save(work / CHECKPOINT_FILE)
    return exported.max_diff


def _evaluated(corpus: Corpus, rows: Indices, scores: NDArray[np.float64]) -> Evaluation | None:
    try:
        return evaluate(corpus, rows, scores[rows])
    except ValueError:  # no task has two of these trials
        return None


def _counts(evaluation: Evaluation) -> dict[str, float]:
    return {
        "trials": int(evaluation.rows.sum()),
        "tasks": len(evaluation.keys),
        "median_trials_a_task": float(np.median(evaluation.rows)),
    }


def _dataset(training: Training) -> dict[str, Any]:
    corpus = training.corpus
    return {
        "name": corpus.name,
        "digest": corpus.digest(),
        "trials": len(corpus),
        "workloads": len(corpus.workloads),
        "targets": list(corpus.targets),
        "licence": training.opened.about.licence,
        "description": training.opened.about.description,
        "notes": list(training.opened.notes),
        "unusable": training.opened.unusable.json(),
    }


def _effort(training: Training) -> dict[str, Any]:
    trained = training.trained
    return {
        "config": asdict(training.config),
        "rows_trained": trained.rows_trained,
        "rows_normalised": trained.rows_normalised,
        "steps": trained.steps,
        "loss": trained.final_loss,
        "processes": training.processes,
        "seconds": training.seconds,
    }


def _lineage(training: Training) -> dict[str, Any]:
    """Tell what the model goes on from, and all that it and its parents learned from.

    Where a parent does not say what it learned from, this one does not know either.
    """
    corpus, parent = training.corpus, training.parent
    own = {"name": corpus.name, "digest": corpus.digest()}
    if parent is None:
        return {"parent": None, "trained_on": [own], "workloads": sorted(corpus.workloads)}
    folder = Path(training.spec["parent"])
    about = read_about(folder)
    before = learned_from(about)
    told = {
        "name": str(about.get("name") or parent.version),
        "checkpoint_sha256": _sha256(folder / CHECKPOINT_FILE),
    }
    workloads = sorted(before.workloads.union(corpus.workloads))
    if before.datasets is None:
        return {"parent": told, "trained_on": None, "workloads": workloads}
    earlier = [
        {"name": str(dataset.get("name", "")), "digest": str(dataset["digest"])}
        for dataset in about["trained_on"]
    ]
    trained_on = [dataset for dataset in earlier if dataset["digest"] != own["digest"]]
    return {"parent": told, "trained_on": [*trained_on, own], "workloads": workloads}


def _command(spec: Mapping[str, Any]) -> str:
    parts = ["tunefleet", "model", "train", Path(spec["place"]).name]
    parts += ["--out", Path(spec["out_dir"]).name]
    if spec.get("parent"):
        parts += ["--from", Path(spec["parent"]).name]
    for device, file in spec.get("profiles") or ():
        parts += ["--profile", f"{device}={Path(file).name}" if device else Path(file).name]
    for option in ("features", "per_task", "seed", "threads", "epochs"):
        if spec.get(option) is not None:
            parts += [f"--{option.replace('_', '-')}", str(spec[option])]
    return shlex.join(parts)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
