"""What each part of the attention model is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.feature_sets import STORES
from coordinator.costmodel.loss import LossConfig, Weighting
from coordinator.costmodel.train import TrainConfig
from coordinator.study.rankers.attention import LABORATORY, AttentionRanker
from coordinator.study.rankers.base import Effort, Ranker
from coordinator.study.rankers.wrappers import Seeing, constant_hardware, shuffled_hardware
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
from tunefleet.errors import Reason, TuneFleetError

Change = Callable[[TrainConfig], TrainConfig]


def _model(**changes: object) -> Change:
    return lambda config: replace(config, model=replace(config.model, **changes))  # type: ignore[arg-type]


def _loss(loss: LossConfig) -> Change:
    return lambda config: replace(config, loss=loss)


VARIANTS: dict[str, Change] = {
    "whole": lambda config: config,
    "no hardware": _model(hardware=False, relations=False),
    "no relations of program to hardware": _model(relations=False),
    "pooling: sum": _model(pooling="sum"),
    "pooling: attention": _model(pooling="attention"),
    "two blocks": _model(blocks=2),
    "three blocks": _model(blocks=3),
    "twice the width": _model(width=96),
    "one head": _model(ensemble=1),
    "loss: pairs alone": _loss(LossConfig(magnitude=0.0)),
    "loss: pairs count the same": _loss(LossConfig(weighting=Weighting.EVEN)),
    "loss: the fastest count more": _loss(LossConfig(weighting=Weighting.TOP)),
    "loss: differences of log latency": _loss(LossConfig(order=0.0, magnitude=1.0)),
    "no guess of the latency": lambda config: replace(config, latency_weight=0.0),
    "no average of weights": lambda config: replace(config, averaging=0.0),
    "no dropout": _model(dropout=0.0),
}
"""What is changed of the model or of its training."""

OF_STORES = ("no relations of program to hardware", "no row of the schedule")
"""Variants that lack what the model has for buffer stores only."""

SHOWN = {
    "no row of the schedule": RowArrays.without_schedules,
    "constant hardware": constant_hardware,
    "shuffled hardware": shuffled_hardware,
}
"""What is changed of the data that the whole model sees."""


def study_ablation(bench: Bench, plan: Plan) -> Findings:
    """Train variants of the model, by default on held-out tasks and on an unseen target."""
    by_name, notes = possible_splits(bench.corpus, plan, ("by_task", "unseen_both"))
    variants = plan.models or (*VARIANTS, *SHOWN)
    if bench.corpus.features is not STORES:
        left_out = [variant for variant in variants if variant in OF_STORES]
        variants = tuple(variant for variant in variants if variant not in OF_STORES)
        name = bench.corpus.features.name
        notes += [
            f"The variant {variant!r} is left out: of {name} the model has none."
            for variant in left_out
        ]
    if not variants:
        raise TuneFleetError(Reason.INVALID_ARGUMENT, f"nothing is left to train. {notes[-1]}")
    book = bench.workbook(len(by_name) * len(plan.seeds) * len(variants))
    comparison = Comparison(book, plan, "ablation", "variant")
    table = Table(
        "ablation",
        f"Variants of the attention model on held-out trials, {len(plan.seeds)} seeds; 95 % "
        "intervals from resampling workloads. Behind: how far the variant's PCA is behind.",
        ("split", "variant", *METRIC_COLUMNS, "behind"),
    )
    for name, splits in by_name.items():
        judged = {
            variant: comparison.judge(
                splits, variant, None if variant == "whole" else partial(make_variant, variant)
            )
            for variant in variants
        }
        whole = judged.get("whole")
        for variant, evaluation in judged.items():
            behind = whole.difference(evaluation)["pca"] if whole else None
            table.add(name, variant, *metric_cells(evaluation), behind)
    return Findings([table], notes=notes)


def make_variant(name: str, seed: int, effort: Effort) -> Ranker:
    """Make an untrained variant of the attention model.

    Raises:
        ValueError: there is none of that name.
    """
    if name in SHOWN:
        return Seeing(AttentionRanker().seeded(seed, effort), SHOWN[name])
    if name not in VARIANTS:
        known = ", ".join([*VARIANTS, *SHOWN])
        raise ValueError(f"there is no variant {name!r}; known are {known}")
    return AttentionRanker(VARIANTS[name](LABORATORY)).seeded(seed, effort)
