"""How well models order trials they have not seen, by what was held out."""

from __future__ import annotations

import numpy as np

from coordinator.study.evaluation import Evaluation, merge
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.registry import MODELS
from coordinator.study.splits import SPLITS, Split
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Findings,
    Plan,
    base_model,
    metric_cells,
    possible_splits,
)
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook

_FIRST = "attention"
"""The model that others are compared with."""


def study_splits(bench: Bench, plan: Plan) -> Findings:
    """Train every model on every split and seed."""
    splits_by_name, notes = possible_splits(bench.corpus, plan, tuple(SPLITS))
    models = plan.models or tuple(MODELS)
    book = bench.workbook(len(splits_by_name) * len(models) * len(plan.seeds))
    results = Table(
        "splits",
        f"Figures on trials held out, over {len(plan.seeds)} seeds; in brackets 95 % intervals "
        "from resampling workloads. They say nothing of other devices than the dataset's.",
        ("split", "model", *METRIC_COLUMNS, "tasks"),
    )
    ahead = Table(
        "splits_ahead",
        f"How far {_FIRST} is ahead of each other model on the same tasks.",
        ("split", "against", *METRIC_COLUMNS),
    )
    for name, splits in splits_by_name.items():
        judged = {
            model: merge([_judge(book, split, model, plan) for split in splits]) for model in models
        }
        for model, evaluation in judged.items():
            results.add(name, model, *metric_cells(evaluation), len(evaluation.keys))
        for model in judged.keys() - {_FIRST} if _FIRST in judged else ():
            difference = judged[_FIRST].difference(judged[model])
            ahead.add(name, model, *(difference[metric] for metric in METRIC_COLUMNS))
    return Findings([results, ahead], notes=notes)


def _judge(book: Workbook, split: Split, model: str, plan: Plan) -> Evaluation:
    settings = {"split": split.name, "model": model, "seed": split.seed}
    if model == "attention":
        # Trained apart, for other studies build on the same weights.
        settings["trained_on"] = len(split.train)
        cell = Cell("models", settings, np.zeros(0, np.int64), split.test)
        return book.judge(cell, lambda: AttentionRanker(parent=base_model(book, split, plan)))
    cell = Cell("models", settings, split.train, split.test)
    return book.judge(cell, lambda: MODELS[model](split.seed, plan.effort))
