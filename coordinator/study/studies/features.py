"""Two descriptions of a program: its buffer stores after lowering, and its schedule's steps."""

from __future__ import annotations

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.feature_sets import FEATURE_SETS, STEPS, STORES
from coordinator.study.evaluation import Evaluation, merge
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Effort, Ranker
from coordinator.study.rankers.wrappers import Seeing
from coordinator.study.splits import Split
from coordinator.study.step_corpus import step_arrays
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Findings,
    Plan,
    metric_cells,
    possible_splits,
)
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook


def study_features(bench: Bench, plan: Plan) -> Findings:
    """Train the same model on either description of the same trials."""
    by_name, notes = possible_splits(bench.corpus, plan, ("within_task", "by_task"))
    corpus, compared = bench.corpus, tuple(FEATURE_SETS)
    if corpus.features is STORES:
        steps = step_arrays(bench.place, corpus)
    else:
        steps, compared = corpus.arrays, (STEPS.name,)
        notes.append(
            "Buffer stores are left out: the dataset was read with schedule steps alone, so that "
            "there is nothing to compare them with."
        )
    book = bench.workbook(len(by_name) * len(plan.seeds) * len(compared))
    table = Table(
        "features",
        f"The attention model on two descriptions of the same trials, {len(plan.seeds)} seeds; "
        "95 % intervals from resampling workloads. Steps need no lowering, and know the workload "
        "by its loops' extents only.",
        ("split", "features", *METRIC_COLUMNS),
    )
    for name, splits in by_name.items():
        for features in compared:
            judged = merge([_judge(book, split, features, steps, plan) for split in splits])
            table.add(name, features, *metric_cells(judged))
    return Findings([table], notes=notes)


def _judge(book: Workbook, split: Split, features: str, steps: RowArrays, plan: Plan) -> Evaluation:
    settings = {"split": split.name, "features": features, "seed": split.seed}
    cell = Cell("features", settings, split.train, split.test)
    return book.judge(cell, lambda: _make(features, steps, split.seed, plan.effort))


def _make(features: str, steps: RowArrays, seed: int, effort: Effort) -> Ranker:
    ranker = AttentionRanker().seeded(seed, effort)
    return ranker if features == STORES.name else Seeing(ranker, lambda _arrays: steps)
