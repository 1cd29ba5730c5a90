"""How many rows each task keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices
from coordinator.study.pruning.context import Context

PAIR = 2
"""Rows of a task of which one can learn an order."""


def quotas(
    sizes: Indices,
    total: int,
    rng: np.random.Generator,
    *,
    even: bool,
    first: Indices | None = None,
) -> Indices:
    """Divide a number of rows among tasks.

    Each task gets a pair before any gets more, then what it should have first, then its part of the
    rest. Where there is not enough for one of these steps, it is divided itself.

    Args:
        sizes: int64 [T], rows of each task.
        total: rows to keep, at most the sum of the sizes.
        rng: decides who gets what cannot be divided.
        even: tasks get equal numbers, as far as they have so many; else equal shares.
        first: int64 [T], what each should have before others get more.

    Returns:
        Int64 [T], at most the sizes, with ``total`` as sum.
    """
    pairs = np.minimum(sizes, PAIR)
    if total < pairs.sum():
        return _pairs_of_some(sizes, total, rng)
    got = pairs
    for level in ([] if first is None else [np.maximum(pairs, first)]) + [sizes]:
        room, left = level - got, total - int(got.sum())
        if left < room.sum():
            return got + divide(room, left, rng, even=even)
        got = level
    return got


def divide(room: Indices, total: int, rng: np.random.Generator, *, even: bool) -> Indices:
    """Divide a number among tasks with limits.

    Args:
        room: int64 [T], the most that each can take.
        total: at most their sum.
        rng: decides who gets what cannot be divided.
        even: equal numbers as far as there is room; else in proportion to the room.

    Returns:
        Int64 [T] with ``total`` as sum.
    """
    if total <= 0:
        return np.zeros_like(room)
    exact = np.minimum(room, _level(room, total)) if even else room * (total / room.sum())
    got = np.minimum(np.floor(exact).astype(np.int64), room)
    # The largest remainders are rounded up; chance decides among equal ones.
    order = np.lexsort((rng.random(len(room)), got - exact, got >= room))
    got[order[: total - int(got.sum())]] += 1
    return got


def keep_by_priority(
    context: Context, count: int, priority: NDArray[np.float64], rng: np.random.Generator
) -> Indices:
    """Keep the rows of highest priority, but a pair of each task before others.

    Args:
        context: what may be pruned.
        count: rows to keep.
        priority: float64 [n].
        rng: decides which tasks go without where there is not enough for pairs.

    Returns:
        Int64 [count], positions.
    """
    tasks = context.tasks()
    sizes = np.array([len(task) for task in tasks], np.int64)
    pairs = int(np.minimum(sizes, PAIR).sum())
    parts = quotas(sizes, min(count, pairs), rng, even=True)
    first = np.zeros(len(context), np.bool_)
    for task, part in zip(tasks, parts, strict=True):
        first[task[np.argsort(-priority[task], kind="stable")[:part]]] = True
    return np.lexsort((-priority, ~first))[:count]


def _level(room: Indices, total: int) -> float:
    """Return the level up to which all must be filled for ``total`` to be used up."""
    ordered = np.sort(room)
    below = np.concatenate([[0], np.cumsum(ordered)[:-1]])
    levels = (total - below) / np.arange(len(room), 0, -1)
    fitting = np.flatnonzero(levels <= ordered)
    return float(levels[fitting[0]]) if len(fitting) else float(ordered[-1])


def _pairs_of_some(sizes: Indices, total: int, rng: np.random.Generator) -> Indices:
    got = np.zeros_like(sizes)
    got[rng.permutation(np.flatnonzero(sizes >= PAIR))[: total // PAIR]] = PAIR
    room = rng.permutation(np.flatnonzero(sizes > got))
    # A third row of a task says more than one that has nothing to be compared with.
    room = room[np.argsort(-got[room], kind="stable")]
    got[room[: total - int(got.sum())]] += 1
    return got
