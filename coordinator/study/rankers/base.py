"""What every model that orders trials can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays

Floats = NDArray[np.float64]
Progress = Callable[[float, str], None]
"""Told the share done (0 to 1) and what is being done."""


@dataclass(frozen=True)
class Effort:
    """What a training may cost."""

    threads: int = 2
    steps: int | None = None
    """At the most, where the model's own number is not wanted: of gradient descent, or trees."""


USUAL_EFFORT = Effort()


class Ranker(Protocol):
    """Learns from some trials, and orders others."""

    @property
    def name(self) -> str:
        """Return the name in tables."""

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Learn.

        Args:
            arrays: all trials.
            rows: int64 [M], those to learn from; no other row's latency is looked at.
            progress: told now and then.

        Raises:
            ValueError: there is nothing to compare among them.
        """

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Score trials, of the same corpus or another.

        Returns:
            Float64 [B], higher is predicted to be faster; comparable within one task and device.
        """


class RandomRanker:
    """Knows nothing: where every other model starts from."""

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Learn nothing."""

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Return random scores, the same for the same rows and seed."""
        return np.random.default_rng((self._seed, len(arrays))).random(len(arrays))[rows]
