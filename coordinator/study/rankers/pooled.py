"""Gradient-boosted trees on a program's pooled features, as MetaSchedule and TenSet have them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.study.rankers.base import Effort, Floats, Progress

_PROGRESS_EVERY_ROUNDS = 10


@dataclass(frozen=True)
class TreeConfig:
    """How trees are grown. TenSet's depth 6 and rate 0.2 with all rows and columns came to a PCA of
    about .765 by task on the shipped dataset (seed 0), these to .780; a pairwise objective within
    tasks ranked better than TenSet's squared error."""

    rounds: int = 600
    max_depth: int = 5
    learning_rate: float = 0.05
    subsample: float = 0.6
    colsample: float = 0.2
    gamma: float = 0.003
    min_child_weight: float = 2.0
    objective: str = "rank:pairwise"
    threads: int = 2


def tree_config(effort: Effort) -> TreeConfig:
    """Return how trees are grown within an effort."""
    config = TreeConfig(threads=effort.threads)
    return (
        config if effort.steps is None else replace(config, rounds=min(config.rounds, effort.steps))
    )


class TreeRanker:
    """XGBoost on the schedule's row and sums and maxima over stores, with or without the hardware
    vector beside them."""

    def __init__(self, hardware: bool, seed: int = 0, config: TreeConfig | None = None) -> None:
        self.name = "xgb_hw" if hardware else "xgb"
        self._hardware = hardware
        self._seed = seed
        self._config = config or TreeConfig()
        self.booster: Any = None

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Grow trees on the rows, each task a query."""
        import xgboost  # noqa: PLC0415 (half a second)

        order = rows[np.argsort(arrays.group[rows], kind="stable")]
        relevance = _relevance(arrays, order)
        _, counts = np.unique(arrays.group[order], return_counts=True)
        data = xgboost.DMatrix(self._inputs(arrays, order), relevance)
        data.set_group(counts)
        config = self._config
        settings = {
            "objective": config.objective,
            "max_depth": config.max_depth,
            "eta": config.learning_rate,
            "gamma": config.gamma,
            "min_child_weight": config.min_child_weight,
            "subsample": config.subsample,
            "colsample_bytree": config.colsample,
            "nthread": config.threads,
            "seed": self._seed,
            "tree_method": "hist",
        }
        if config.objective.startswith("rank:"):
            # Relevance is a share of the best throughput, not a grade.
            settings |= {"ndcg_exp_gain": False, "lambdarank_pair_method": "mean"}
            settings |= {"lambdarank_num_pair_per_sample": 8}
        booster = None
        for done in range(0, config.rounds, _PROGRESS_EVERY_ROUNDS):
            count = min(_PROGRESS_EVERY_ROUNDS, config.rounds - done)
            booster = xgboost.train(settings, data, count, xgb_model=booster)
            if progress is not None:
                progress((done + count) / config.rounds, f"{done + count} trees")
        self.booster = booster

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Return the trees' sum for each row."""
        import xgboost  # noqa: PLC0415

        scores: NDArray[np.float32] = self.booster.predict(
            xgboost.DMatrix(self._inputs(arrays, rows))
        )
        return scores.astype(np.float64)

    def _inputs(self, arrays: RowArrays, rows: Indices) -> NDArray[np.float32]:
        pooled = pool(arrays, rows)
        return np.concatenate([pooled, arrays.hardware[rows]], axis=1) if self._hardware else pooled


def pool(arrays: RowArrays, rows: Indices) -> NDArray[np.float32]:
    """Make one row of each program: sums and maxima over its stores, after its schedule's row.

    Args:
        arrays: of all programs.
        rows: int64 [B], which.

    Returns:
        Float32 [B, 3F], or [B, 2F] where programs have no row of their schedule.
    """
    taken = arrays.take(rows)
    stores = taken.without_schedules()
    pooled = np.zeros((len(rows), 2 * arrays.features.shape[1]), np.float32)
    some = np.flatnonzero(stores.stores)
    if len(some):
        first = stores.first_store[some]
        sums = np.add.reduceat(stores.features, first, axis=0)
        highest = np.maximum.reduceat(stores.features, first, axis=0)
        pooled[some] = np.concatenate([sums, highest], axis=1)
    if not taken.scheduled:
        return pooled
    return np.concatenate([taken.features[taken.first_store], pooled], axis=1)


def _relevance(arrays: RowArrays, rows: Indices) -> NDArray[np.float32]:
    """Return float32 [B]: the task's best latency over the row's; 0 for failed trials."""
    log_latency = arrays.log_latency[rows]
    groups = arrays.group[rows]
    best = np.full(int(groups.max(initial=-1)) + 1, np.inf)
    np.minimum.at(best, groups, np.where(np.isnan(log_latency), np.inf, log_latency))
    with np.errstate(invalid="ignore"):
        share = np.exp(best[groups] - log_latency)
    return np.nan_to_num(share, nan=0.0).astype(np.float32)
