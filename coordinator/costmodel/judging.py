"""What versions are judged by: how they rank the trials that no version was trained on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.metrics import PairwiseAccuracy, pairwise_accuracy, top_k_score

_TOP = (1, 5)


def accuracy(
    arrays: RowArrays,
    scores: NDArray[np.float64],
    rows: NDArray[np.bool_],
    *,
    beyond_noise: bool = False,
) -> PairwiseAccuracy:
    """Compare scores with latencies.

    Args:
        arrays: N rows.
        scores: float64 [N], higher is predicted to be faster.
        rows: bool [N], which to look at.
        beyond_noise: leave out pairs that are no further apart than their noise.
    """
    return pairwise_accuracy(
        scores[rows],
        arrays.log_latency[rows],
        arrays.group[rows],
        arrays.noise[rows] if beyond_noise else None,
    )


def held_out_accuracy(
    arrays: RowArrays, scores: NDArray[np.float64], name: str = "heldout"
) -> dict[str, float]:
    """Return the pairwise accuracies on held-out rows as metrics named ``pca_NAME...``."""
    every = accuracy(arrays, scores, arrays.held_out)
    resolved = accuracy(arrays, scores, arrays.held_out, beyond_noise=True)
    return {
        f"pca_{name}": every.by_records,
        f"pca_{name}_by_task": every.by_list,
        f"pca_{name}_resolved": resolved.by_records,
    }


def held_out_top(arrays: RowArrays, scores: NDArray[np.float64]) -> dict[str, float]:
    """Return top-1 and top-5 on held-out rows as metrics ``top1`` and ``top5``."""
    rows = arrays.held_out
    known = scores[rows], arrays.log_latency[rows], arrays.group[rows]
    return {f"top{k}": top_k_score(*known, k) for k in _TOP}
