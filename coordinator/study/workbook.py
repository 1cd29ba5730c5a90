"""Keeps what a study has computed, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.feature_sets import STEPS
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Evaluation, evaluate
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Floats, Progress, Ranker

_RELEASE = 1
"""Raised when the models or splits change, so that old results are not taken for new ones."""


@dataclass(frozen=True)
class Cell:
    """One entry of a study: a model that learned from some rows, judged on others."""

    study: str
    settings: Mapping[str, Any]
    """Everything that decides the outcome beside corpus and rows: model, split, seed, sizes."""
    train: Indices
    test: Indices


class Workbook:
    """A folder of scores, named by what they were computed from."""

    def __init__(self, folder: Path, corpus: Corpus, progress: Progress, cells: int) -> None:
        """Open or make it.

        Args:
            folder: where scores are kept.
            corpus: what is studied.
            progress: told after each cell and within them.
            cells: how many there will be.
        """
        self._folder = folder
        self._corpus = corpus
        self._digest = corpus_digest(corpus)
        self._progress = progress
        self._cells = max(1, cells)
        self._done = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def corpus(self) -> Corpus:
        """Return what is studied."""
        return self._corpus

    def judge(self, cell: Cell, make: Callable[[], Ranker]) -> Evaluation:
        """Train and judge a model, unless that has been done before.

        Args:
            cell: on what.
            make: makes the untrained model.
        """
        return evaluate(self._corpus, cell.test, self.scores(cell, make))

    def scores(self, cell: Cell, make: Callable[[], Ranker]) -> Floats:
        """Return float64 [B], the scores of a cell's test rows."""
        path = self._folder / f"{self._name(cell)}.npy"
        label = " ".join(str(value) for value in cell.settings.values() if _is_brief(value))
        scores = _load(path, len(cell.test))
        if scores is None:
            ranker = make()
            if len(cell.train):
                ranker.fit(self._corpus.arrays, cell.train, self._within(label))
            scores = ranker.score(self._corpus.arrays, cell.test)
            partial = path.with_suffix(".partial.npy")
            np.save(partial, scores)
            partial.replace(path)
        self._done += 1
        self._progress(min(1.0, self._done / self._cells), label)
        return scores

    def trained(self, cell: Cell, make: Callable[[], AttentionRanker]) -> Checkpoint:
        """Return the weights of an attention model trained on a cell's rows, to build on."""
        path = self._folder / f"{self._name(cell)}.weights.npz"
        try:
            return Checkpoint.load(path)
        except (FileNotFoundError, ValueError):
            pass
        ranker = make()
        ranker.fit(self._corpus.arrays, cell.train, self._within("base model"))
        assert ranker.checkpoint is not None
        partial = path.with_suffix(".partial")
        ranker.checkpoint.save(partial)
        partial.replace(path)
        return ranker.checkpoint

    def _within(self, label: str) -> Progress:
        def report(share: float, message: str) -> None:
            self._progress(
                min(1.0, (self._done + share) / self._cells),
                f"{label}: {message} ({self._done + 1} of {self._cells})",
            )

        return report

    def _name(self, cell: Cell) -> str:
        settings = {key: _plain(value) for key, value in cell.settings.items()}
        text = json.dumps([_RELEASE, cell.study, settings], sort_keys=True)
        digest = hashlib.sha256(text.encode())
        digest.update(self._digest.encode())
        digest.update(cell.train.tobytes() + b"|" + cell.test.tobytes())
        return digest.hexdigest()[:32]


def corpus_digest(corpus: Corpus) -> str:
    """Name a corpus by its trials and what was measured."""
    digest = hashlib.sha256("\n".join(corpus.trial_ids).encode())
    digest.update(corpus.arrays.log_latency.tobytes())
    digest.update(np.ascontiguousarray(corpus.arrays.features).tobytes())
    if corpus.features is STEPS:
        # What TenSet's devices are is said by whoever knows it; other trials say it themselves.
        digest.update(corpus.arrays.hardware.tobytes())
    return digest.hexdigest()[:32]


def _load(path: Path, rows: int) -> Floats | None:
    try:
        scores: Floats = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return scores if scores.shape == (rows,) else None


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _is_brief(value: Any) -> bool:
    return isinstance(value, str | int | float)
