"""How much of the training trials can go without the order suffering, by how they are chosen."""

from __future__ import annotations

import math

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.study.evaluation import Evaluation, Interval, merge
from coordinator.study.pruning import STRATEGIES, Context, prune
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Floats
from coordinator.study.splits import Split, make_split
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Curve,
    Findings,
    Plan,
    base_model,
    metric_cells,
)
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook

SHARES = (0.3, 0.45, 0.6, 0.75, 0.85)
"""Of the training trials that are removed."""
_SCOUT_SHARE = 0.15
"""Of the training trials that the model has seen whose uncertainty some strategies go by."""


def study_pruning(bench: Bench, plan: Plan) -> Findings:
    """Train on what each strategy leaves of each split."""
    names, strategies = plan.splits or ("by_task",), plan.models or tuple(STRATEGIES)
    cells = len(names) * len(plan.seeds) * (1 + len(strategies) * len(SHARES))
    book = bench.workbook(cells)
    results = Table(
        "pruning",
        f"The attention model on held-out trials after pruning those it learns from, over "
        f"{len(plan.seeds)} seeds; in brackets 95 % intervals from resampling workloads.",
        ("split", "strategy", "removed", *METRIC_COLUMNS),
    )
    largest = Table(
        "pruned_share",
        "The largest share removed at which the interval of PCA still covers that of the whole "
        f"set's, of {', '.join(f'{share:g}' for share in SHARES)}.",
        ("split", "strategy", "removed"),
    )
    curves = []
    for name in names:
        pruner = _Pruner(book, plan, name)
        whole = pruner.judge("all", 0.0)
        results.add(name, "all", 0.0, *metric_cells(whole))
        full = whole.intervals()["pca"]
        curve = Curve(
            f"pruning_{name}",
            f"Pruning, {name}",
            "share of training trials removed",
            "held-out PCA",
            {strategy: [(0.0, full)] for strategy in strategies},
        )
        for strategy in strategies:
            kept_up = 0.0
            for share in SHARES:
                pruned = pruner.judge(strategy, share)
                results.add(name, strategy, share, *metric_cells(pruned))
                interval = pruned.intervals()["pca"]
                curve.series[strategy].append((share, interval))
                if covers(interval, full.value):
                    kept_up = share
            largest.add(name, strategy, kept_up)
        curves.append(curve)
    return Findings([results, largest], curves)


def covers(interval: Interval, value: float) -> bool:
    """Tell whether a figure is as good as a value, as far as its interval tells."""
    return not math.isnan(value) and interval.high >= value


class _Pruner:
    """Prunes the training trials of one kind of split, and judges what can be learned from the
    rest."""

    def __init__(self, book: Workbook, plan: Plan, split: str) -> None:
        self._book = book
        self._plan = plan
        self._splits = [make_split(split, book.corpus, seed, plan.share) for seed in plan.seeds]
        self._scouts: dict[int, AttentionRanker] = {}

    def judge(self, strategy: str, removed: float) -> Evaluation:
        """Judge the attention model over all seeds."""
        return merge([self._judge(split, strategy, removed) for split in self._splits])

    def _judge(self, split: Split, strategy: str, removed: float) -> Evaluation:
        settings = {
            "split": split.name,
            "model": "attention",
            "seed": split.seed,
            "strategy": strategy,
            "removed": removed,
        }
        if not removed:
            settings["trained_on"] = len(split.train)
            cell = Cell("pruning", settings, np.zeros(0, np.int64), split.test)
            return self._book.judge(cell, lambda: self._whole(split))
        cell = Cell("pruning", settings, self._left(split, strategy, removed), split.test)
        return self._book.judge(cell, lambda: self._model(split.seed))

    def _whole(self, split: Split) -> AttentionRanker:
        return AttentionRanker(parent=base_model(self._book, split, self._plan))

    def _left(self, split: Split, strategy: str, removed: float) -> Indices:
        context = Context(
            self._book.corpus,
            split.train,
            split.seed,
            spread=lambda rows: self._uncertainty(split, rows),
        )
        return prune(strategy, context, 1.0 - removed)

    def _uncertainty(self, split: Split, rows: Indices) -> Floats:
        """Return the disagreement of the heads of a model that has seen few of the trials."""
        if split.seed not in self._scouts:
            rng = np.random.default_rng(split.seed)
            count = math.ceil(_SCOUT_SHARE * len(split.train))
            some = np.sort(rng.permutation(split.train)[:count])
            cell = Cell("scout", {"split": split.name, "seed": split.seed}, some, some)
            checkpoint = self._book.trained(cell, lambda: self._model(split.seed))
            self._scouts[split.seed] = AttentionRanker(parent=checkpoint)
        scout = self._scouts[split.seed]
        scores = scout.head_scores(self._book.corpus.arrays, rows)
        return np.asarray(scores.std(axis=1), np.float64)

    def _model(self, seed: int) -> AttentionRanker:
        return AttentionRanker().seeded(seed, self._plan.effort)
