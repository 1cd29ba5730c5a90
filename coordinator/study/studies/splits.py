"""How well models order trials they have not seen, by what was held out."""

from __future__ import annotations

from coordinator.study.rankers.registry import MODELS
from coordinator.study.splits import SPLITS
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Comparison,
    Findings,
    Plan,
    metric_cells,
    possible_splits,
)
from coordinator.study.tables import Table

_FIRST = "attention"
"""The model that others are compared with."""


def study_splits(bench: Bench, plan: Plan) -> Findings:
    """Train every model on every split and seed."""
    splits_by_name, notes = possible_splits(bench.corpus, plan, tuple(SPLITS))
    models = plan.models or tuple(MODELS)
    book = bench.workbook(len(splits_by_name) * len(models) * len(plan.seeds))
    comparison = Comparison(book, plan, "models", "model")
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
            model: comparison.judge(splits, model, None if model == _FIRST else MODELS[model])
            for model in models
        }
        for model, evaluation in judged.items():
            results.add(name, model, *metric_cells(evaluation), len(evaluation.keys))
        for model in judged.keys() - {_FIRST} if _FIRST in judged else ():
            difference = judged[_FIRST].difference(judged[model])
            ahead.add(name, model, *(difference[metric] for metric in METRIC_COLUMNS))
    return Findings([results, ahead], notes=notes)
