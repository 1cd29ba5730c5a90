"""Whether the model knows when it does not know: what it says of pairs, against what is so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.study.corpus import Corpus
from coordinator.study.evaluation import Interval
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Floats
from coordinator.study.studies.base import Bench, Curve, Findings, Plan, possible_splits
from coordinator.study.tables import Table
from coordinator.study.workbook import Cell

_BINS = 10
_PAIRS_A_TASK = 64
_RESAMPLES = 200


def study_calibration(bench: Bench, plan: Plan) -> Findings:
    """Compare the probability that the heads give a pair's order with how often it is right."""
    usual = ("within_task", "by_task", "unseen_both")
    by_name, notes = possible_splits(bench.corpus, plan, usual)
    book = bench.workbook(len(by_name) * len(plan.seeds))
    table = Table(
        "calibration",
        "The probability given to the likelier order of pairs of held-out trials, and the share of "
        "pairs for which it was right. Expected calibration error: the mean distance of the two "
        "over ten bins. Spread: Kendall-like agreement of a pair's disagreement among heads with "
        "its being wrong (0.5: tells nothing).",
        ("split", "pairs", "mean probability", "right", "calibration error", "spread"),
    )
    curve = Curve("calibration", "Calibration", "probability given", "share right")
    for name, splits in by_name.items():
        found = []
        for split in splits:
            seed = split.seed
            cell = Cell("base", {"split": name, "seed": seed}, split.train, np.zeros(0, np.int64))
            ranker = AttentionRanker().seeded(seed, plan.effort)
            model = AttentionRanker(parent=book.trained(cell, lambda ranker=ranker: ranker))  # type: ignore[misc]
            scores = model.head_scores(bench.corpus.arrays, split.test)
            found.append(_pairs(bench.corpus, split.test, scores, seed))
        pairs = _Pairs(
            np.concatenate([p.probability for p in found]),
            np.concatenate([p.right for p in found]),
            np.concatenate([p.disagreement for p in found]),
        )
        table.add(
            name,
            len(pairs.right),
            float(pairs.probability.mean()),
            float(pairs.right.mean()),
            pairs.error(),
            pairs.spread(),
        )
        curve.series[name] = pairs.points()
    return Findings([table], [curve], notes)


@dataclass(frozen=True)
class _Pairs:
    probability: Floats
    """Given to the likelier order, 0.5 to 1."""
    right: Floats
    """1 where that was the order measured."""
    disagreement: Floats
    """Standard deviation over the heads of the score difference."""

    def bins(self) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        edges = np.quantile(self.probability, np.linspace(0, 1, _BINS + 1))
        place = np.clip(np.searchsorted(edges, self.probability, side="right") - 1, 0, _BINS - 1)
        found = [np.flatnonzero(place == number) for number in range(_BINS)]
        return [rows for rows in found if len(rows)]

    def error(self) -> float:
        parts = [
            len(rows) * abs(self.probability[rows].mean() - self.right[rows].mean())
            for rows in self.bins()
        ]
        return float(sum(parts) / len(self.right))

    def spread(self) -> float:
        """Return the chance that a wrong pair has more disagreement than a right one."""
        order = np.argsort(np.argsort(self.disagreement)) + 1.0
        wrong = self.right < 0.5
        count = int(wrong.sum())
        if count in {0, len(wrong)}:
            return float("nan")
        above = order[wrong].sum() - count * (count + 1) / 2
        return float(above / (count * (len(wrong) - count)))

    def points(self) -> list[tuple[float, Interval]]:
        rng = np.random.default_rng(0)
        points = []
        for rows in self.bins():
            right = self.right[rows]
            drawn = rng.binomial(len(right), right.mean(), _RESAMPLES) / len(right)
            low, high = np.quantile(drawn, [0.025, 0.975])
            interval = Interval(float(right.mean()), float(low), float(high))
            points.append((float(self.probability[rows].mean()), interval))
        return points


def _pairs(corpus: Corpus, rows: Indices, scores: Floats, seed: int) -> _Pairs:
    """Draw pairs of each task that are further apart than their noise."""
    rng = np.random.default_rng(seed)
    log_latency, noise = corpus.arrays.log_latency[rows], corpus.arrays.noise[rows]
    first, second = [], []
    groups = corpus.arrays.group[rows]
    for group in np.unique(groups):
        some = np.flatnonzero((groups == group) & ~np.isnan(log_latency))
        if len(some) > 1:
            drawn = rng.choice(some, (2, _PAIRS_A_TASK))
            first.append(drawn[0])
            second.append(drawn[1])
    i, j = np.concatenate(first), np.concatenate(second)
    apart = np.abs(log_latency[i] - log_latency[j]) > np.hypot(noise[i], noise[j])
    i, j = i[apart], j[apart]
    margin = scores[i] - scores[j]
    chance = (1.0 / (1.0 + np.exp(-margin))).mean(axis=1)
    faster = log_latency[i] < log_latency[j]
    likelier = chance > 0.5
    return _Pairs(
        np.where(likelier, chance, 1 - chance),
        (likelier == faster).astype(np.float64),
        margin.std(axis=1),
    )
