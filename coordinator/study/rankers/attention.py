"""The project's own model in the form the laboratory compares models in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.feature_sets import of_width
from coordinator.costmodel.train import Material, TrainConfig, fit, head_scores
from coordinator.study.rankers.base import Effort, Floats, Progress
from tunefleet.machine_lock import MachineLock

LABORATORY = TrainConfig(epochs=10, epochs_fine_tuning=20, min_steps=1500, max_steps=6000)
"""For tens of thousands of trials. On the shipped dataset 10 epochs, 16 and 33 ranked held-out
tasks equally well, so more would only cost time."""


@dataclass
class AttentionRanker:
    """The attention model, from scratch or on from a parent's weights."""

    config: TrainConfig = LABORATORY
    name: str = "attention"
    parent: Checkpoint | None = None
    """Weights to go on from, and to fall back on."""
    replay: Indices | None = None
    """Rows of what the parent learned from, mixed in so that it does not forget."""
    state_path: Path | None = None
    """Where training keeps its state, to be resumed."""
    lock: MachineLock | None = None
    checkpoint: Checkpoint | None = field(default=None, init=False)
    """What :meth:`fit` made."""

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Train on the rows; a new network's inputs are made for the features there are."""
        sized = of_width(arrays.features.shape[1]).sized(self.config.model)
        trained = fit(
            arrays,
            self.parent,
            replace(self.config, model=replace(sized, scheduled=arrays.scheduled)),
            progress,
            self.lock,
            material=Material(rows, self.replay),
            state_path=self.state_path,
        )
        version = "" if self.parent is None else self.parent.version
        self.checkpoint = Checkpoint.of(trained.model, self.name, version, trained.rows_normalised)

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Return the mean over the ensemble's heads."""
        return np.asarray(self.head_scores(arrays, rows).mean(axis=1), np.float64)

    def head_scores(self, arrays: RowArrays, rows: Indices) -> NDArray[np.float64]:
        """Return float64 [B, E], the score of each head."""
        checkpoint = self.checkpoint or self.parent
        assert checkpoint is not None, "fit first"
        return head_scores(checkpoint.build(), arrays, rows, self.lock)

    def seeded(self, seed: int, effort: Effort) -> AttentionRanker:
        """Return an untrained one like this with another seed and effort."""
        steps = self.config.max_steps if effort.steps is None else effort.steps
        config = replace(self.config, seed=seed, threads=effort.threads, max_steps=steps)
        return replace(self, config=config)
