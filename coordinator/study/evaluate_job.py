"""The evaluation job: one model, or two beside each other, on a dataset.

Spec (those marked * may be left out)::

    {"models": [{"name": for people, "onnx": path, "folder"*: model's folder}, ...], "place":
     dataset's folder or file, "rows"*: "auto", "all" or "held_out", "only"*: file that names the
     trials to judge, one a line, "per_task"*: bool, "features"*: "stores" or "steps", which the
     models must be for, "sample"*: int, records of each task of TenSet's, "profiles"*:
     [[TenSet's device or "", file with what it is], ...], "threads"*: int}

``auto`` judges all trials, but where a model learned from this very dataset those alone that no
model learns from. Of two models one may rank by stores and one by steps: they then see the same
trials.

Result: ``{"dataset": {"name", "digest", "trials", "workloads", "targets"}, "judged": {"trials",
"tasks", "workloads", "rows": "all" or "held_out"}, "notes": [text, ...], "unusable":
{"count", "named": [{"where", "why"}, ...]}, "models": [{"name",
"features", "metrics": {name: {"value", "low", "high"}}, "tasks": [...] with per_task}, ...]}``
and, of two models, ``"difference"`` (first minus second, on the same tasks) and ``"verdict"`` by
metric.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.costmodel.feature_sets import (
    FEATURE_SETS,
    STEPS,
    STORES,
    FeatureSet,
    chosen_features,
)
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.dataset.schema import invalid
from coordinator.models.job import Progress, run_job
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import TOP, Evaluation, Interval, evaluate
from coordinator.study.figures import figures
from coordinator.study.model_folder import NOT_KNOWN, Learned, learned_from, read_about
from coordinator.study.opening import Opened, is_tenset, open_corpus
from coordinator.study.step_corpus import step_arrays
from tunefleet.errors import Reason, TuneFleetError

_READ = 0.4
"""Share of the work that is done once the dataset is read."""
_FEWEST_WORKLOADS = 5
"""Resampling fewer tells nothing of how another handful would have come out."""

AHEAD, BEHIND, EQUAL = "ahead", "behind", "no difference to be seen"
TOO_FEW = f"too few workloads to tell ({_FEWEST_WORKLOADS} at the least)"


def evaluate_models(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID.
    """
    place = Path(spec["place"])
    models = [
        OnnxModel(
            Path(model["onnx"]),
            _threads(spec),
            tuple(FEATURE_SETS.values()),
            name=str(model["name"]),
        )
        for model in spec["models"]
    ]
    names = [str(model["name"]) for model in spec["models"]]
    learned = [_learned(model) for model in spec["models"]]
    _check_features(spec, models, names)
    opened = open_corpus(
        place,
        _shared_features(place, models, names),
        per_task=spec.get("sample"),
        profiles=spec.get("profiles") or (),
        progress=lambda share, message: progress(_READ * share, message),
    )
    corpus = opened.corpus
    if spec.get("only"):
        corpus = _only(corpus, Path(spec["only"]))
    chosen = str(spec.get("rows") or "auto")
    if chosen == "auto":
        known = any(_may_have_met(of, opened) for of in learned)
        chosen = "held_out" if known else "all"
    rows = np.arange(len(corpus))
    if chosen == "held_out":
        rows = np.flatnonzero(corpus.arrays.held_out)
    views = {model.features.name: _view(corpus, place, model.features) for model in models}
    found = [
        _judged(views[model.features.name], rows, model, _share(progress, number, len(models)))
        for number, model in enumerate(models)
    ]
    workloads = {workload for workload, _, _ in found[0].keys}
    result: dict[str, Any] = {
        "dataset": {
            "name": corpus.name,
            "digest": corpus.digest(),
            "trials": len(corpus),
            "workloads": len(corpus.workloads),
            "targets": list(corpus.targets),
        },
        "judged": {
            "trials": int(found[0].rows.sum()),
            "tasks": len(found[0].keys),
            "workloads": len(workloads),
            "rows": chosen,
        },
        "notes": [
            *opened.notes,
            *(
                note
                for name, of in zip(names, learned, strict=True)
                for note in _notes(name, of, opened, chosen, workloads)
            ),
            *_short_lists(found[0]),
        ],
        "unusable": opened.unusable.json(),
        "models": [
            {
                "name": name,
                "features": model.features.name,
                "metrics": figures(evaluation.intervals()),
                **({"tasks": _tasks(corpus, evaluation)} if spec.get("per_task") else {}),
            }
            for name, model, evaluation in zip(names, models, found, strict=True)
        ],
    }
    if len(found) == 2:
        difference = found[0].difference(found[1])
        result["difference"] = figures(difference)
        result["verdict"] = {
            name: verdict(interval, len(workloads)) for name, interval in difference.items()
        }
    progress(1.0, "")
    return result


def verdict(difference: Interval, workloads: int) -> str:
    """Say in words what a difference tells.

    Args:
        difference: of the first model to the second, with its interval.
        workloads: that the interval was resampled from.
    """
    if workloads < _FEWEST_WORKLOADS:
        return TOO_FEW
    if difference.low > 0:
        return AHEAD
    return BEHIND if difference.high < 0 else EQUAL


def _check_features(
    spec: Mapping[str, Any], models: Sequence[OnnxModel], names: Sequence[str]
) -> None:
    wanted = chosen_features(spec.get("features"))
    for name, model in zip(names, models, strict=True):
        if wanted is not None and model.features is not wanted:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{name} ranks by {model.features.name}, not by {wanted.name}",
                hint="Leave --features out: a model says itself what it is for.",
            )


def _shared_features(place: Path, models: Sequence[OnnxModel], names: Sequence[str]) -> FeatureSet:
    """Return the features to read a dataset with: stores, where any model needs them."""
    for name, model in zip(names, models, strict=True):
        if model.features is STORES and is_tenset(place):
            raise TuneFleetError(
                Reason.MODEL_INVALID,
                f"{name} ranks by stores, which TenSet's records in {place} do not have",
                hint="Judge a model that was trained with --features steps or on TenSet's files.",
            )
    return STORES if any(model.features is STORES for model in models) else STEPS


def _view(corpus: Corpus, place: Path, features: FeatureSet) -> Corpus:
    """Return the same trials, described by other features if need be."""
    if features is corpus.features:
        return corpus
    return replace(corpus, arrays=step_arrays(place, corpus))


def _may_have_met(learned: Learned, opened: Opened) -> bool:
    """Tell whether a model may have learned from these very trials."""
    if opened.corpus.digest() in (learned.datasets or ()):
        return True
    # Of another sample of the same files it is not known which trials the two share.
    return opened.sampled and not learned.workloads.isdisjoint(opened.corpus.workloads)


def _judged(corpus: Corpus, rows: Indices, model: OnnxModel, progress: Progress) -> Evaluation:
    scores = model.scores(corpus.arrays, rows, progress)
    try:
        return evaluate(corpus, rows, scores)
    except ValueError as e:
        raise invalid(f"{corpus.name} cannot be used to judge by: {e}") from e


def _share(progress: Progress, number: int, models: int) -> Progress:
    """Make a model's own progress a part of the whole."""
    return lambda share, message: progress(_READ + (1 - _READ) * (number + share) / models, message)


def _learned(model: Mapping[str, Any]) -> Learned:
    return learned_from(read_about(Path(model["folder"]))) if model.get("folder") else NOT_KNOWN


def _only(corpus: Corpus, path: Path) -> Corpus:
    wanted = set(path.read_text(encoding="utf-8").split())
    rows = [row for row, name in enumerate(corpus.trial_ids) if name in wanted]
    if not rows:
        raise invalid("none of the trials to judge has features")
    return corpus.take(np.array(rows, np.int64))


def _notes(
    name: str, learned: Learned, opened: Opened, chosen: str, workloads: set[str]
) -> list[str]:
    """Say what a person must know to read a model's figures."""
    notes = []
    corpus = opened.corpus
    if learned.datasets is None:
        if chosen == "all":
            notes += [
                f"It is not known what {name} learned from: trials of {corpus.name} may be among",
                "it. Those that no model learns from are judged alone with --held-out.",
            ]
    elif corpus.digest() in learned.datasets:
        if chosen == "held_out":
            notes += [
                f"{name} learned from this very dataset: only the trials held out of every",
                "training, one in five, are judged (--all judges all).",
            ]
        else:
            notes += [f"{name} learned from four in five of these trials: it knows the answers."]
    elif _may_have_met(learned, opened):
        seen = len(workloads & learned.workloads)
        notes += [f"{name} learned from a sample of {seen} of these {len(workloads)} workloads:"]
        notes += (
            ["only trials held out of every training, one in five, are judged (--all judges all)."]
            if chosen == "held_out"
            else ["it may know some of the answers."]
        )
    else:
        seen = len(workloads & learned.workloads)
        notes += [
            f"{name} learned from other trials of {seen} of these {len(workloads)} workloads."
            if seen
            else f"{name} has met none of these workloads before."
        ]
    return [" ".join(notes)] if notes else []


def _short_lists(evaluation: Evaluation) -> list[str]:
    """Say where top-k is perfect whatever the model."""
    most = max(TOP)
    short = int((evaluation.rows <= most).sum())
    if not short:
        return []
    tasks = f"{short} of {len(evaluation.keys)} tasks have {most} trials or fewer"
    return [f"{tasks}: their top-{most} is 1 whatever the model."]


def _tasks(corpus: Corpus, evaluation: Evaluation) -> list[dict[str, Any]]:
    sources = dict(zip(corpus.workloads, corpus.sources, strict=True))
    tasks = []
    for number, (workload, target, device) in enumerate(evaluation.keys):
        best_s = float(evaluation.best_s[number])
        tasks.append(
            {
                "workload": workload,
                "sources": sorted(sources[workload]),
                "target": target,
                "fingerprint": device,
                "trials": int(evaluation.rows[number]),
                "best_s": best_s,
                "pca": _number(float(evaluation.accuracy[number])),
                "pca_resolved": _number(float(evaluation.resolved[number])),
                **{
                    f"top{k}": best_s / float(chosen[number])
                    for k, chosen in zip(TOP, evaluation.chosen_s, strict=True)
                },
            }
        )
    return tasks


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _threads(spec: Mapping[str, Any]) -> int:
    return int(spec.get("threads") or len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    sys.exit(run_job(evaluate_models))
