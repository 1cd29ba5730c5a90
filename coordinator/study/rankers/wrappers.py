"""Models that see something else than the corpus has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.study.rankers.base import Floats, Progress, Ranker


@dataclass
class Seeing:
    """A model to which arrays are shown changed, in training and in scoring."""

    ranker: Ranker
    change: Callable[[RowArrays], RowArrays]

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.ranker.name

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Learn from the changed rows."""
        self.ranker.fit(self.change(arrays), rows, progress)

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Score the changed rows."""
        return self.ranker.score(self.change(arrays), rows)


@dataclass
class Joined:
    """A model that learns from further rows beside those it is given."""

    ranker: Ranker
    beside: Indices

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.ranker.name

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Learn from both."""
        self.ranker.fit(arrays, np.union1d(rows, self.beside), progress)

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Score as the model does."""
        return self.ranker.score(arrays, rows)


def constant_hardware(arrays: RowArrays) -> RowArrays:
    """Give every row the hardware vector of the first."""
    hardware = np.broadcast_to(arrays.hardware[:1], arrays.hardware.shape)
    return replace(arrays, hardware=np.ascontiguousarray(hardware))


def shuffled_hardware(arrays: RowArrays, seed: int = 0) -> RowArrays:
    """Give every task the hardware vector of a random other one, the same for all of its rows."""
    _, first = np.unique(arrays.group, return_index=True)
    of_group = np.random.default_rng(seed).permutation(first)
    numbers = np.zeros(int(arrays.group.max(initial=0)) + 1, np.int64)
    numbers[arrays.group[first]] = of_group
    return replace(arrays, hardware=arrays.hardware[numbers[arrays.group]])
