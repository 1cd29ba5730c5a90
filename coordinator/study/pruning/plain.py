"""Strategies that look at nothing but the tasks: what every other one must beat."""

from __future__ import annotations

import numpy as np

from coordinator.costmodel.arrays import Indices
from coordinator.study.pruning.context import Context, strategy
from coordinator.study.pruning.quotas import keep_by_priority, quotas


@strategy("random")
def random(context: Context, keep: float) -> Indices:
    """Keep any rows, with a pair of each task."""
    rng = context.rng()
    return keep_by_priority(context, context.count(keep), rng.random(len(context)), rng)


@strategy("per_task_uniform")
def per_task_uniform(context: Context, keep: float) -> Indices:
    """Keep equally many rows of each task, any of them: what is rich gives way to what is rare."""
    rng, tasks = context.rng(), context.tasks()
    sizes = np.array([len(task) for task in tasks], np.int64)
    parts = quotas(sizes, context.count(keep), rng, even=True)
    return np.concatenate(
        [rng.choice(task, part, replace=False) for task, part in zip(tasks, parts, strict=True)]
    )
