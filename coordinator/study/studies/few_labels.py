"""Labels of a device that a model has not seen, and models that learn from a few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.metrics import pairwise_accuracy
from coordinator.study.corpus import Corpus
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Effort, Floats, Progress
from coordinator.study.splits import Split

LABELS = (32, 128, 512)
_ROWS_A_TASK = 8
"""Few of each of many tasks teach more than many of few; eight still make 28 pairs."""
_POOL_SHARE = 0.25
_JUDGED_SHARE = 0.25
"""Of the labelled tasks that decide whether fine-tuning has helped."""


@dataclass(frozen=True)
class Labelled:
    """A split with trials of the unseen target that may be asked for."""

    split: Split
    pool: Indices
    """Trials of the target, of workloads that are not tested."""
    test: Indices

    def draw(self, corpus: Corpus, count: int) -> Indices:
        """Draw labels: eight trials of as many workloads as it takes.

        Returns:
            Sorted row numbers, ``count`` of them or as many as there are.
        """
        rng = np.random.default_rng((self.split.seed, count))
        drawn: list[Indices] = []
        for workload in rng.permutation(np.unique(corpus.workload[self.pool])):
            rows = rng.permutation(self.pool[corpus.workload[self.pool] == workload])
            drawn.append(rows[: min(_ROWS_A_TASK, count - sum(map(len, drawn)))])
            if sum(map(len, drawn)) >= count:
                break
        return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, np.int64)


def with_pool(corpus: Corpus, split: Split) -> Labelled:
    """Set trials of the held-out target aside to be drawn as labels.

    Where the split tests all workloads on that target, a quarter of the workloads is no longer
    tested; where it holds out workloads too, all others of that target may be asked for.
    """
    [target] = np.unique(corpus.target[split.test])
    of_target = np.flatnonzero(corpus.target == target)
    untested = np.setdiff1d(corpus.workload[of_target], corpus.workload[split.test])
    if not len(untested):
        names = np.unique(corpus.workload[split.test])
        rng = np.random.default_rng(split.seed)
        untested = rng.permutation(names)[: int(_POOL_SHARE * len(names))]
    pool = of_target[np.isin(corpus.workload[of_target], untested)]
    return Labelled(split, pool, np.setdiff1d(split.test, pool))


@dataclass
class FewShot:
    """A parent fine-tuned on a few labels, or the parent itself where that ranks better."""

    parent: Checkpoint
    replay: Indices
    """Rows of what the parent learned from."""
    seed: int
    effort: Effort
    name: str = "few_shot"
    kept: bool = True
    """Whether the gate let the fine-tuned model through."""

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Fine-tune on most labels, compare on the rest, then fine-tune on all."""
        groups = np.random.default_rng(self.seed).permutation(np.unique(arrays.group[rows]))
        judged = np.isin(arrays.group[rows], groups[: round(_JUDGED_SHARE * len(groups))])
        self._model = self._tuned()
        if judged.any() and not judged.all():
            self._model.fit(arrays, rows[~judged], progress)
            ours = self._accuracy(arrays, rows[judged], self._model)
            theirs = self._accuracy(arrays, rows[judged], AttentionRanker(parent=self.parent))
            self.kept = ours >= theirs
        if self.kept:
            self._model = self._tuned()
            self._model.fit(arrays, rows, progress)
        else:
            self._model = AttentionRanker(parent=self.parent)

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Score with whichever model ranks better."""
        return self._model.score(arrays, rows)

    def _tuned(self) -> AttentionRanker:
        base = AttentionRanker(parent=self.parent, replay=self.replay)
        return base.seeded(self.seed, self.effort)

    @staticmethod
    def _accuracy(arrays: RowArrays, rows: Indices, model: AttentionRanker) -> float:
        return pairwise_accuracy(
            model.score(arrays, rows), arrays.log_latency[rows], arrays.group[rows]
        ).by_records
