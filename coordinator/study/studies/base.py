"""What every study is given and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Evaluation, Interval
from coordinator.study.rankers.base import USUAL_EFFORT, Effort, Progress
from coordinator.study.tables import Table
from coordinator.study.workbook import Workbook


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


def metric_cells(evaluation: Evaluation) -> tuple[Interval, ...]:
    """Return PCA, PCA by task, top-1 and top-5 with their intervals, as tables show them."""
    intervals = evaluation.intervals()
    return tuple(intervals[name] for name in METRIC_COLUMNS)


METRIC_COLUMNS = ("pca", "pca_by_task", "top1", "top5")
