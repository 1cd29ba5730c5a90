"""Pruning by what a model does not know yet, alone and together with everything else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.study.pruning.context import Context, strategy
from coordinator.study.pruning.diverse import cover, standardised
from coordinator.study.pruning.labelled import fast_counts, fastest_first
from coordinator.study.pruning.quotas import PAIR, keep_by_priority, quotas

RANDOM_SHARE = 0.2
"""Of what ``uncertain`` keeps: a model is sure of some things for no good reason."""

_WEIGHTS = (0.1, 10.0)
"""How little and how much a spread beside its task's mean may make a distance count."""


@strategy("uncertain")
def uncertain(context: Context, keep: float) -> Indices:
    """Keep the rows of which a model is least sure, and a fifth of any others."""
    rng, count = context.rng(), context.count(keep)
    pairs = sum(min(len(task), PAIR) for task in context.tasks())
    unsure = max(count - round(RANDOM_SHARE * count), min(count, pairs))
    kept = keep_by_priority(context, unsure, context.spreads(), rng)
    others = np.setdiff1d(np.arange(len(context)), kept)
    return np.concatenate([kept, rng.choice(others, count - unsure, replace=False)])


@strategy("combined")
def combined(context: Context, keep: float) -> Indices:
    """Keep each task's fast decile whole, and spread the rest out from there.

    The rest are equally many rows of each task, each the furthest in features from all that are
    kept; with a model's spread a distance counts as often as its row's spread exceeds the task's
    mean (0.1 to 10 times).
    """
    rng, tasks = context.rng(), context.tasks()
    points = standardised(context)
    spread = None if context.spread is None else context.spreads()
    sizes = np.array([len(task) for task in tasks], np.int64)
    first = fast_counts(sizes)
    parts = quotas(sizes, context.count(keep), rng, even=True, first=first)
    kept = []
    for task, part, fast in zip(tasks, parts.tolist(), first.tolist(), strict=True):
        begin = np.searchsorted(task, fastest_first(context, task, rng)[: min(part, fast)])
        weight = None if spread is None else _relative(spread[task])
        kept.append(task[cover(points[task], begin, part, rng, weight)])
    return np.concatenate(kept)


def _relative(spread: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = spread.mean()
    if mean <= 0:
        return np.ones_like(spread)
    relative: NDArray[np.float64] = np.clip(spread / mean, *_WEIGHTS)
    return relative
