"""What every study is given and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Evaluation, Interval, merge
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import USUAL_EFFORT, Effort, Progress, Ranker
from coordinator.study.splits import Split, make_split
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell, Workbook
from tunefleet.errors import Reason, TuneFleetError


@dataclass(frozen=True)
class Plan:
    """How thorough a study is."""

    seeds: tuple[int, ...] = (0, 1, 2)
    share: float = 0.2
    """Of workloads, networks or candidates that are held out."""
    splits: tuple[str, ...] = ()
    """Empty for those that the study is about."""
    models: tuple[str, ...] = ()
    effort: Effort = USUAL_EFFORT


@dataclass(frozen=True)
class Curve:
    """Figures that depend on a number."""

    name: str
    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, Interval]]] = field(default_factory=dict)
    logarithmic: bool = False
    """Whether the x axis is."""


@dataclass(frozen=True)
class Findings:
    """What a study found."""

    tables: list[Table]
    curves: list[Curve] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""


@dataclass(frozen=True)
class Bench:
    """Where a study works."""

    corpus: Corpus
    place: Path
    """The dataset's folder, for studies that need more of it than the corpus has."""
    folder: Path
    """Where results are kept."""
    progress: Progress

    def workbook(self, cells: int) -> Workbook:
        """Open the folder's workbook for so many cells."""
        return Workbook(self.folder / "cells", self.corpus, self.progress, cells)


Study = Callable[[Bench, Plan], Findings]

Make = Callable[[int, Effort], Ranker]
"""Makes an untrained model from a seed and what its training may cost."""


def metric_cells(evaluation: Evaluation) -> tuple[Interval, ...]:
    """Return PCA, PCA by task, top-1 and top-5 with their intervals, as tables show them."""
    intervals = evaluation.intervals()
    return tuple(intervals[name] for name in METRIC_COLUMNS)


def possible_splits(
    corpus: Corpus, plan: Plan, usual: tuple[str, ...]
) -> tuple[dict[str, list[Split]], list[str]]:
    """Split a corpus in every way that a study is about.

    Args:
        corpus: to split.
        plan: with the names of splits, if somebody chose some.
        usual: names of those to make otherwise; what the corpus does not allow is left out.

    Returns:
        By name a split for each seed, and what was left out and why.

    Raises:
        TuneFleetError: SPLIT_IMPOSSIBLE, none of the splits, or not one that somebody chose.
    """
    found: dict[str, list[Split]] = {}
    notes = []
    for name in plan.splits or usual:
        try:
            found[name] = [make_split(name, corpus, seed, plan.share) for seed in plan.seeds]
        except TuneFleetError as e:
            if plan.splits or e.reason is not Reason.SPLIT_IMPOSSIBLE:
                raise
            notes.append(f"The split {name} is left out: {e.message}.")
    if not found:
        raise TuneFleetError(Reason.SPLIT_IMPOSSIBLE, " ".join(notes))
    return found, notes


def base_model(book: Workbook, split: Split, plan: Plan) -> Checkpoint:
    """Return the attention model trained on one side of a split, which several studies build on."""
    settings = {"split": split.name, "seed": split.seed}
    cell = Cell("base", settings, split.train, np.zeros(0, np.int64))
    return book.trained(cell, lambda: AttentionRanker().seeded(split.seed, plan.effort))


@dataclass(frozen=True)
class Comparison:
    """Models that a study compares, each trained on the same splits."""

    book: Workbook
    plan: Plan
    study: str
    """Of the workbook's cells."""
    compared: str
    """The setting by which they differ, such as ``model``."""

    def judge(self, splits: Sequence[Split], name: str, make: Make | None) -> Evaluation:
        """Judge one of them over all seeds.

        Args:
            splits: one for each seed.
            name: of the model.
            make: makes it; ``None`` for the usual attention model, which is trained apart, for
                other studies build on the same weights.
        """
        return merge([self._judge(split, name, make) for split in splits])

    def _judge(self, split: Split, name: str, make: Make | None) -> Evaluation:
        settings = {"split": split.name, self.compared: name, "seed": split.seed}
        book, plan = self.book, self.plan
        if make is None:
            settings["trained_on"] = len(split.train)
            cell = Cell(self.study, settings, np.zeros(0, np.int64), split.test)
            return book.judge(cell, lambda: AttentionRanker(parent=base_model(book, split, plan)))
        cell = Cell(self.study, settings, split.train, split.test)
        return book.judge(cell, lambda: make(split.seed, plan.effort))


METRIC_COLUMNS = ("pca", "pca_by_task", "top1", "top5")
