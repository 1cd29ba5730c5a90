"""Four descriptions of a program: its buffer stores after lowering, its schedule's row, both, and
its schedule's steps."""

from __future__ import annotations

from dataclasses import replace

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.feature_sets import STEPS, STORES
from coordinator.study.rankers.attention import LABORATORY, AttentionRanker
from coordinator.study.rankers.base import Effort
from coordinator.study.rankers.wrappers import Seeing
from coordinator.study.step_corpus import step_arrays
from coordinator.study.studies.base import (
    METRIC_COLUMNS,
    Bench,
    Comparison,
    Findings,
    Make,
    Plan,
    metric_cells,
    possible_splits,
)
from coordinator.study.tables import Table


def study_features(bench: Bench, plan: Plan) -> Findings:
    """Train the same model on each description of the same trials."""
    by_name, notes = possible_splits(bench.corpus, plan, ("within_task", "by_task"))
    corpus = bench.corpus
    if corpus.features is STORES:
        compared = _descriptions(step_arrays(bench.place, corpus))
    else:
        compared = {STEPS.name: _as_it_is}
        notes.append(
            "Buffer stores and schedules' rows are left out: the dataset was read with schedule "
            "steps alone, so that there is nothing to compare them with."
        )
    book = bench.workbook(len(by_name) * len(plan.seeds) * len(compared))
    comparison = Comparison(book, plan, "features", "features")
    table = Table(
        "features",
        "The attention model on descriptions of the same trials: the stores of the lowered program "
        "alone, one row for the schedule alone, both (what agents rank by), and the sequence of "
        f"the schedule's steps. {len(plan.seeds)} seeds; 95 % intervals from resampling workloads. "
        "Schedule and steps need no lowering, and know the workload by its loops' extents only.",
        ("split", "features", *METRIC_COLUMNS),
    )
    for name, splits in by_name.items():
        for features, make in compared.items():
            judged = comparison.judge(splits, features, make)
            table.add(name, features, *metric_cells(judged))
    return Findings([table], notes=notes)


def _descriptions(steps: RowArrays) -> dict[str, Make]:
    return {
        "stores": lambda seed, effort: Seeing(_as_it_is(seed, effort), RowArrays.without_schedules),
        "schedule": lambda seed, effort: Seeing(
            _UNRELATED.seeded(seed, effort), RowArrays.schedules_alone
        ),
        "both": _as_it_is,
        STEPS.name: lambda seed, effort: Seeing(_as_it_is(seed, effort), lambda _arrays: steps),
    }


def _as_it_is(seed: int, effort: Effort) -> AttentionRanker:
    return AttentionRanker().seeded(seed, effort)


_UNRELATED = AttentionRanker(replace(LABORATORY, model=replace(LABORATORY.model, relations=False)))
"""A schedule's row has none of the sizes that are related to the hardware's."""
