"""Two descriptions of a program: its buffer stores after lowering, and its schedule's steps."""

from __future__ import annotations

from dataclasses import replace

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.steps import MAX_STEPS, STEP_FEATURES
from coordinator.study.evaluation import Evaluation, merge
from coordinator.study.rankers.attention import LABORATORY, AttentionRanker
from coordinator.study.rankers.base import Effort, Ranker
from coordinator.study.rankers.wrappers import Seeing
from coordinator.study.splits import Split, make_split
from coordinator.study.step_corpus import step_arrays
from coordinator.study.studies.base import METRIC_COLUMNS, Bench, Findings, Plan, metric_cells
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook

FEATURES = ("stores", "steps")


def study_features(bench: Bench, plan: Plan) -> Findings:
    """Train the same model on either description of the same trials."""
    names = plan.splits or ("within_task", "by_task")
    book = bench.workbook(len(names) * len(plan.seeds) * len(FEATURES))
    steps = step_arrays(bench.place, bench.corpus)
    table = Table(
        "features",
        f"The attention model on two descriptions of the same trials, {len(plan.seeds)} seeds; "
        "95 % intervals from resampling workloads. Steps need no lowering, and know the workload "
        "by its loops' extents only.",
        ("split", "features", *METRIC_COLUMNS),
    )
    for name in names:
        splits = [make_split(name, bench.corpus, seed, plan.share) for seed in plan.seeds]
        for features in FEATURES:
            judged = merge([_judge(book, split, features, steps, plan) for split in splits])
            table.add(name, features, *metric_cells(judged))
    return Findings([table])


def _judge(book: Workbook, split: Split, features: str, steps: RowArrays, plan: Plan) -> Evaluation:
    settings = {"split": split.name, "features": features, "seed": split.seed}
    cell = Cell("features", settings, split.train, split.test)
    return book.judge(cell, lambda: _make(features, steps, split.seed, plan.effort))


def _make(features: str, steps: RowArrays, seed: int, effort: Effort) -> Ranker:
    if features == "stores":
        return AttentionRanker().seeded(seed, effort)
    model = replace(
        LABORATORY.model, token_width=STEP_FEATURES, max_tokens=MAX_STEPS, relations=False
    )
    ranker = AttentionRanker(replace(LABORATORY, model=model)).seeded(seed, effort)
    return Seeing(ranker, lambda _arrays: steps)
