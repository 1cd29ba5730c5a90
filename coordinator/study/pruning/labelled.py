"""Pruning by latency: what is fast is rare, and what a model must know best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.study.pruning.context import Context, strategy
from coordinator.study.pruning.quotas import quotas

DECILES = 10


@strategy("label_stratified")
def label_stratified(context: Context, keep: float) -> Indices:
    """Keep each task's fast decile whole, and of each slower one fewer rows, any of them.

    The chance of a row falls evenly with its decile, from 9 for the second-fastest to 1 for the
    slowest, in which failed trials are. After BALTO (Bi et al., ICLR 2023): what is collected at
    random holds too many slow programs. Of each task the same share stays.
    """
    rng, tasks = context.rng(), context.tasks()
    sizes = np.array([len(task) for task in tasks], np.int64)
    parts = quotas(sizes, context.count(keep), rng, even=False, first=fast_counts(sizes))
    kept = []
    for task, part in zip(tasks, parts, strict=True):
        by_speed = fastest_first(context, task, rng)
        decile = deciles(len(task))
        # Weighted sampling without replacement: Efraimidis and Spirakis (2006).
        key = rng.exponential(size=len(task)) / (DECILES - decile)
        fast = decile == 0
        key[fast] = np.arange(fast.sum()) - len(task)
        kept.append(by_speed[np.argsort(key, kind="stable")[:part]])
    return np.concatenate(kept)


def fastest_first(context: Context, task: Indices, rng: np.random.Generator) -> Indices:
    """Sort positions of one task by latency, failed trials last, equal ones by chance."""
    log_latency = context.corpus.arrays.log_latency[context.rows[task]]
    return task[np.lexsort((rng.random(len(task)), log_latency))]


def deciles(size: int) -> NDArray[np.int64]:
    """Return the decile, 0 to 9, of each of the rows of a task that are sorted by latency."""
    return np.arange(size) * DECILES // max(size, 1)


def fast_counts(sizes: Indices) -> Indices:
    """Return how many rows of tasks of these sizes are in decile 0."""
    return -(-sizes // DECILES)
