"""Pruning by features: of programs that are alike one will do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Floats, Indices
from coordinator.study.pruning.context import Context, strategy
from coordinator.study.pruning.quotas import divide, quotas
from coordinator.study.rankers.pooled import pool

_BLOCK_ROWS = 1024
"""Larger tasks are covered block by block: the time grows with rows times rows of a block."""

_LEAST_DEVIATION = 1e-6
"""A feature that differs by less does not differ."""


@strategy("feature_diverse")
def feature_diverse(context: Context, keep: float) -> Indices:
    """Keep equally many rows of each task, spread out over its programs (greedy k-centre).

    Beginning with any row, the next one is that whose features are furthest from all that are kept
    (Gonzalez, 1985; at most twice as far as the best choice would leave any row).
    """
    rng, tasks = context.rng(), context.tasks()
    points = standardised(context)
    sizes = np.array([len(task) for task in tasks], np.int64)
    parts = quotas(sizes, context.count(keep), rng, even=True)
    kept = []
    for task, part in zip(tasks, parts, strict=True):
        begin = rng.permutation(len(task))[: min(1, part)]
        kept.append(task[cover(points[task], begin, int(part), rng)])
    return np.concatenate(kept)


def standardised(context: Context) -> Floats:
    """Return float32 [n, D]: sums and maxima over stores, with mean 0 and deviation 1 each."""
    pooled = pool(context.corpus.arrays, context.rows)
    deviation = pooled.std(axis=0, dtype=np.float64)
    varies = deviation > _LEAST_DEVIATION
    centred = pooled[:, varies] - pooled[:, varies].mean(axis=0)
    scaled: Floats = (centred / deviation[varies]).astype(np.float32)
    return scaled


def cover(
    points: Floats,
    begin: Indices,
    count: int,
    rng: np.random.Generator,
    weight: NDArray[np.float64] | None = None,
) -> Indices:
    """Choose rows so that none is far from a chosen one.

    Args:
        points: float32 [m, D].
        begin: int64 [b], rows that are chosen already, at most ``count``.
        count: rows to choose altogether.
        rng: cuts what is larger than a block.
        weight: float64 [m]; a distance counts so many times. All alike if left out.

    Returns:
        Int64 [count], rows, beginning with ``begin``.
    """
    weight = np.ones(len(points)) if weight is None else weight
    if len(points) <= _BLOCK_ROWS:
        return _cover_block(points, begin, count, weight)
    blocks = np.array_split(rng.permutation(len(points)), -(-len(points) // _BLOCK_ROWS))
    begun = [np.flatnonzero(np.isin(block, begin)) for block in blocks]
    room = np.array([len(block) - len(b) for block, b in zip(blocks, begun, strict=True)], np.int64)
    more = divide(room, count - len(begin), rng, even=False)
    chosen = [
        block[_cover_block(points[block], first, len(first) + extra, weight[block])]
        for block, first, extra in zip(blocks, begun, more.tolist(), strict=True)
    ]
    return np.concatenate([begin, np.setdiff1d(np.concatenate(chosen), begin)])


def _cover_block(
    points: Floats, begin: Indices, count: int, weight: NDArray[np.float64]
) -> Indices:
    nearest = np.full(len(points), np.inf, np.float32)
    taken = np.zeros(len(points), np.bool_)
    chosen: list[int] = []
    while len(chosen) < count:
        if len(chosen) < len(begin):
            row = int(begin[len(chosen)])
        else:
            # Before the first row everything is infinitely far: the weight decides.
            distance = np.sqrt(nearest) if chosen else np.ones(len(points))
            row = int(np.argmax(np.where(taken, -1.0, distance * weight)))
        chosen.append(row)
        taken[row] = True
        away = points - points[row]
        np.minimum(nearest, np.einsum("ij,ij->i", away, away), out=nearest)
    return np.array(chosen, np.int64)
