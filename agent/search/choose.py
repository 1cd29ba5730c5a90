"""Which of many programs to measure: the promising ones, and some that teach the model most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.search.evolution import FloatArray

FloatMatrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pick:
    """One program chosen, by its place."""

    index: int
    explored: bool
    """Chosen for being uncertain or different rather than for its score."""


def choose(
    features: Sequence[FloatArray],
    score: FloatArray | None,
    spread: FloatArray | None,
    trials: int,
    exploration: float,
) -> list[Pick]:
    """Choose programs to measure.

    Args:
        features: raw features of each program, float32 [1 + stores, 172]: its schedule's row, then
            its stores.
        score: float32 [programs], higher is faster; ``None`` without a model, when all are chosen
            for being different.
        spread: float32 [programs], how much the model doubts its score.
        trials: how many to choose; fewer come back where there are fewer programs.
        exploration: share of the trials given to uncertain and different programs.

    Returns:
        The best by score, best first, then the uncertain ones, then the different ones.
    """
    trials = min(trials, len(features))
    if trials == 0:
        return []
    points = _standardised(features)
    if score is None or spread is None:
        return [Pick(i, explored=True) for i in _farthest(points, [], trials)]
    explored = min(round(trials * exploration), trials)
    best = _best_and_distinct(points, score, trials - explored)
    # Where the model has no doubts at all, difference is all that is left to explore by.
    doubtful = (explored + 1) // 2 if float(spread.max()) > 0 else 0
    uncertain = [int(i) for i in np.argsort(-spread, kind="stable") if i not in set(best)]
    uncertain = uncertain[:doubtful]
    different = _farthest(points, best + uncertain, explored - doubtful)
    return [Pick(i, explored=False) for i in best] + [
        Pick(i, explored=True) for i in uncertain + different
    ]


def _best_and_distinct(points: FloatMatrix, score: FloatArray, count: int) -> list[int]:
    """Take the best scores; programs the features cannot tell apart only if nothing else is left.

    The model predicts the same for such programs, so measuring one of them tests it for all.
    """
    order = [int(i) for i in np.argsort(-score, kind="stable")]
    seen: set[bytes] = set()
    first: list[int] = []
    repeated: list[int] = []
    for index in order:
        key = points[index].tobytes()
        (repeated if key in seen else first).append(index)
        seen.add(key)
    return (first + repeated)[:count]


def _standardised(features: Sequence[FloatArray]) -> FloatMatrix:
    """Describe each program by one point, float64 [programs, 2 * 172], standardised.

    First the logs of the schedule's row, then those of the stores, summed over them: the same
    column means something else in the two.
    """
    points = np.stack(
        [np.concatenate([_summed_logs(rows[:1]), _summed_logs(rows[1:])]) for rows in features]
    )
    deviation = points.std(axis=0)
    deviation[deviation < 1e-9] = 1.0
    return np.asarray((points - points.mean(axis=0)) / deviation, dtype=np.float64)


def _summed_logs(rows: FloatArray) -> npt.NDArray[np.float64]:
    values = np.nan_to_num(rows.astype(np.float64))
    return np.asarray((np.sign(values) * np.log1p(np.abs(values))).sum(axis=0), dtype=np.float64)


def _farthest(points: FloatMatrix, chosen: Sequence[int], count: int) -> list[int]:
    """Add points greedily, each the farthest from all chosen before (Gonzalez' k-centre, 1985)."""
    picks: list[int] = []
    nearest = np.full(len(points), np.inf)
    for index in chosen:
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
    taken = np.zeros(len(points), dtype=bool)
    taken[list(chosen)] = True
    for _ in range(min(count, int((~taken).sum()))):
        # With nothing chosen yet all are infinitely far and the first, itself random, begins.
        index = int(np.argmax(np.where(taken, -1.0, nearest)))
        picks.append(index)
        taken[index] = True
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
    return picks
