"""What a model that has never seen a target is worth there, and what a few labels add."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.model import ModelConfig
from coordinator.study.evaluation import Evaluation, merge
from coordinator.study.rankers.attention import LABORATORY, AttentionRanker
from coordinator.study.rankers.base import RandomRanker, Ranker
from coordinator.study.rankers.pooled import TreeRanker, tree_config
from coordinator.study.rankers.wrappers import Joined
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Curve,
    Findings,
    Plan,
    base_model,
    metric_cells,
    possible_splits,
)
from coordinator.study.studies.few_labels import LABELS, FewShot, Labelled, with_pool
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook


def study_transfer(bench: Bench, plan: Plan) -> Findings:
    """Train without a target, then let models learn from 0, 32, 128, 512 and all labels of it."""
    by_name, notes = possible_splits(bench.corpus, plan, ("by_target", "unseen_both"))
    book = bench.workbook(len(by_name) * len(plan.seeds) * (7 + 2 * len(LABELS)))
    table = Table(
        "transfer",
        "Held-out trials of a target that training did not have; labels are trials of that target "
        f"on workloads that are not tested. {len(plan.seeds)} seeds; 95 % intervals from "
        "resampling workloads.",
        ("split", "model", "labels", *METRIC_COLUMNS),
    )
    curves = []
    for name, splits in by_name.items():
        labelled = [with_pool(bench.corpus, split) for split in splits]
        curve = Curve(
            f"transfer_{name}",
            f"Transfer, {name}",
            "labels of the target",
            "held-out PCA",
            logarithmic=True,
        )
        for model, labels in _lines(labelled):
            judged = merge([Transfer(book, plan, one).judge(model, labels) for one in labelled])
            table.add(name, model, labels, *metric_cells(judged))
            curve.series.setdefault(model, []).append(
                (max(1.0, float(labels)), judged.intervals()["pca"])
            )
        curves.append(curve)
    return Findings([table], curves, notes)


def _lines(labelled: list[Labelled]) -> list[tuple[str, int]]:
    pool = min(len(one.pool) for one in labelled)
    some = [labels for labels in LABELS if labels < pool]
    lines = [("random", 0), ("attention", 0), ("attention without hardware", 0), ("xgb_hw", 0)]
    lines += [("attention", labels) for labels in [*some, pool]]
    lines += [("xgb_hw", labels) for labels in [*some, pool]]
    return [*lines, ("attention on the labels alone", pool)]


class Transfer:
    """One held-out target."""

    def __init__(self, book: Workbook, plan: Plan, labelled: Labelled) -> None:
        self._book = book
        self._plan = plan
        self._labelled = labelled
        self._split = labelled.split

    def judge(self, model: str, labels: int) -> Evaluation:
        """Judge a model after so many labels."""
        drawn = self._labelled.draw(self._book.corpus, labels) if labels else None
        settings = {
            "split": self._split.name,
            "model": model,
            "labels": labels,
            "seed": self._split.seed,
        }
        train = self._split.train if drawn is None else drawn
        if drawn is None and model == "attention":
            # The base model is trained apart, for others build on it.
            train = np.zeros(0, np.int64)
            settings["trained_on"] = len(self._split.train)
        cell = Cell("transfer", settings, train, self._labelled.test)
        return self._book.judge(cell, lambda: self._make(model, drawn))

    def _make(self, model: str, drawn: Indices | None) -> Ranker:
        seed, effort = self._split.seed, self._plan.effort
        if model == "random":
            return RandomRanker(seed)
        if model == "xgb_hw":
            trees = TreeRanker(True, seed, tree_config(effort))
            return trees if drawn is None else Joined(trees, self._split.train)
        if model == "attention without hardware":
            config = ModelConfig(hardware=False, relations=False)
            return AttentionRanker(replace(LABORATORY, model=config)).seeded(seed, effort)
        if model == "attention on the labels alone":
            return AttentionRanker().seeded(seed, effort)
        if drawn is None:
            return AttentionRanker(parent=self._base())
        return FewShot(self._base(), self._split.train, seed, effort)

    def _base(self) -> Checkpoint:
        return base_model(self._book, self._split, self._plan)
