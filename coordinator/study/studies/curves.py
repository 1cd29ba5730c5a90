"""What more data would buy: figures against the number of workloads, and of trials of each."""

from __future__ import annotations

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Evaluation, merge
from coordinator.study.rankers.registry import MODELS
from coordinator.study.splits import Split, make_split
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Curve,
    Findings,
    Plan,
    metric_cells,
)
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook

WORKLOADS = (25, 50, 100, 200, 400, 800)
TRIALS = (2, 4, 8)
"""Of each task; the largest number is all there are."""


def study_curves(bench: Bench, plan: Plan) -> Findings:
    """Train on ever more workloads, and on ever more trials of each."""
    names, models = plan.splits or ("by_task",), plan.models or ("attention", "xgb_hw")
    points = len(WORKLOADS) + len(TRIALS) + 1
    book = bench.workbook(len(names) * len(models) * len(plan.seeds) * points)
    table = Table(
        "curves",
        f"Held-out trials after training on a part of the others, {len(plan.seeds)} seeds; 95 % "
        "intervals from resampling workloads.",
        ("split", "model", "workloads", "trials a task", "trials", *METRIC_COLUMNS),
    )
    curves = []
    for name in names:
        splits = [make_split(name, bench.corpus, seed, plan.share) for seed in plan.seeds]
        available = min(len(np.unique(bench.corpus.workload[split.train])) for split in splits)
        by_workloads = Curve(
            f"workloads_{name}",
            f"More workloads, {name}",
            "workloads",
            "held-out PCA",
            logarithmic=True,
        )
        by_trials = Curve(
            f"trials_{name}",
            f"More trials of each task, {name}",
            "trials a task",
            "held-out PCA",
            logarithmic=True,
        )
        for model in models:
            sizes = [count for count in WORKLOADS if count < available]
            for workloads in [*sizes, available]:
                judged, rows = _judge(book, splits, model, plan, (workloads, 0))
                table.add(name, model, workloads, "all", rows, *metric_cells(judged))
                by_workloads.series.setdefault(model, []).append(
                    (workloads, judged.intervals()["pca"])
                )
            for trials in TRIALS:
                judged, rows = _judge(book, splits, model, plan, (available, trials))
                table.add(name, model, available, trials, rows, *metric_cells(judged))
                by_trials.series.setdefault(model, []).append((trials, judged.intervals()["pca"]))
        curves += [by_workloads, by_trials]
    return Findings([table], curves)


def _judge(
    book: Workbook, splits: list[Split], model: str, plan: Plan, size: tuple[int, int]
) -> tuple[Evaluation, int]:
    workloads, trials = size
    parts = []
    for split in splits:
        rows = some_of(book.corpus, split.train, workloads, trials, split.seed)
        settings = {"split": split.name, "model": model, "seed": split.seed}
        cell = Cell("models", settings, rows, split.test)
        parts.append(
            (
                book.judge(cell, lambda split=split: MODELS[model](split.seed, plan.effort)),  # type: ignore[misc]
                len(rows),
            )
        )
    return merge([part for part, _ in parts]), round(sum(n for _, n in parts) / len(parts))


def some_of(corpus: Corpus, rows: Indices, workloads: int, trials: int, seed: int) -> Indices:
    """Choose rows of some workloads, and so many of each task.

    Args:
        corpus: where the rows are.
        rows: to choose from.
        workloads: how many; more of them contain those of fewer.
        trials: of each task; 0 for all.
        seed: decides which.

    Returns:
        Sorted row numbers.
    """
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.unique(corpus.workload[rows]))[:workloads]
    rows = rows[np.isin(corpus.workload[rows], chosen)]
    if not trials:
        return np.sort(rows)
    rows = rng.permutation(rows)
    rows = rows[np.argsort(corpus.arrays.group[rows], kind="stable")]
    groups = corpus.arrays.group[rows]
    begin = np.searchsorted(groups, groups, side="left")
    return np.sort(rows[np.arange(len(rows)) - begin < trials])
