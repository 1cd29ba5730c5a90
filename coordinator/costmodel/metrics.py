"""How well scores rank measured candidates. Formulas after TenSet (Zheng et al., 2021) and TLP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]
Groups: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class PairwiseAccuracy:
    """Share of pairs that scores order as latencies do; 0.5 is guessing. NaN without pairs."""

    by_records: float
    """Mean over lists, weighted by their number of records."""
    by_list: float
    """Unweighted mean over lists."""
    pairs: int
    lists: int
    """Lists with at least one pair."""


def pairwise_accuracy(
    scores: Values, log_latency: Values, groups: Groups, noise: Values | None = None
) -> PairwiseAccuracy:
    """Compute the pairwise comparison accuracy (PCA).

    ``PCA(list) = 1 / |P| * sum over (i, j) in P of [order by score = order by 1 / latency]``,
    where P holds the list's pairs of different latency; a pair of equal scores counts one half.

    Args:
        scores: [N], higher is faster.
        log_latency: [N], natural logarithm of seconds; rows with NaN (failed trials) are left out.
        groups: int64 [N], the list (task and device) of each row; pairs never cross lists.
        noise: [N], relative standard deviations; where given, pairs whose latencies differ by no
            more than theirs together are left out.
    """
    weighted, plain, records, pairs, lists = 0.0, 0.0, 0, 0, 0
    for rows in _lists(log_latency, groups):
        right, count = _ordered_pairs(
            scores[rows], log_latency[rows], None if noise is None else noise[rows]
        )
        if count == 0:
            continue
        weighted += len(rows) * right / count
        plain += right / count
        records += len(rows)
        pairs += count
        lists += 1
    if lists == 0:
        return PairwiseAccuracy(math.nan, math.nan, 0, 0)
    return PairwiseAccuracy(weighted / records, plain / lists, pairs, lists)


def top_k_score(
    scores: Values,
    log_latency: Values,
    groups: Groups,
    k: int,
    weights: Mapping[int, float] | None = None,
) -> float:
    """Compute ``sum_t w_t min(l_t) / sum_t w_t min(the k best-scored of l_t)``.

    Args:
        scores: [N], higher is faster.
        log_latency: [N]; rows with NaN are left out.
        groups: int64 [N], task and device of each row.
        k: how many of the best-scored candidates one would measure, at least 1.
        weights: how often a network runs each task, by group; 1 where absent.

    Returns:
        0 to 1, 1 being perfect; NaN where nothing was measured.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    best, chosen = 0.0, 0.0
    for rows in _lists(log_latency, groups):
        latency = np.exp(log_latency[rows])
        # A stable sort on the negated scores: among equals the first stands for what one would try.
        order = np.argsort(-scores[rows], kind="stable")
        weight = 1.0 if weights is None else weights.get(int(groups[rows[0]]), 1.0)
        best += weight * float(latency.min())
        chosen += weight * float(latency[order[:k]].min())
    return best / chosen if chosen > 0 else math.nan


def _lists(log_latency: Values, groups: Groups) -> list[NDArray[np.int64]]:
    measured = np.flatnonzero(~np.isnan(log_latency))
    order = measured[np.argsort(groups[measured], kind="stable")]
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    return [rows for rows in np.split(order, borders) if len(rows)]


def _ordered_pairs(scores: Values, log_latency: Values, noise: Values | None) -> tuple[float, int]:
    right, count = 0.0, 0
    # Row by row: memory stays linear in the list, which may hold tens of thousands of records.
    for i in range(len(scores) - 1):
        slower = log_latency[i + 1 :] - log_latency[i]
        threshold = 0.0 if noise is None else np.hypot(noise[i], noise[i + 1 :])
        counted = np.abs(slower) > threshold
        lead = scores[i] - scores[i + 1 :]
        agrees = np.where(lead == 0, 0.5, (lead > 0) == (slower > 0))
        right += float(agrees[counted].sum())
        count += int(counted.sum())
    return right, count
