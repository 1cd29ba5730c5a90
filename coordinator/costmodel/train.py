"""Training: from scratch, or on from a parent's weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.loss import ranking_loss
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.sampling import assemble, epoch_batches, head_choice, hide_hardware
from tunefleet.machine_lock import MachineLock

_SCORING_BATCH = 512
"""Rows scored at once: well under a second, so that a waiting measurement is not kept."""
_WARM_UP_STEPS = 10
_PROGRESS_EVERY_STEPS = 10
"""About once a second of work."""
_NORMALISED_ROWS = 4096
"""Enough for means and standard deviations; bounds the memory for long programs to 90 MB."""

Progress = Callable[[float, str], None]
"""Told the share done (0 to 1) and what is being done."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults suit a campaign: seconds of two cores for a thousand trials."""

    model: ModelConfig = field(default_factory=ModelConfig)
    seed: int = 0
    threads: int = 2
    noise_floor: float = 0.02
    """Smallest relative difference of latencies that counts as a difference."""
    list_size: int = 32
    lists_per_batch: int = 8
    epochs: int = 60
    epochs_fine_tuning: int = 25
    min_steps: int = 60
    max_steps: int = 1500
    """Bounds on the optimisation steps, for very few rows and for very many."""
    learning_rate: float = 1.5e-3
    learning_rate_fine_tuning: float = 6e-4
    weight_decay: float = 0.02
    magnitude: float = 0.1
    """Weight of the loss that gives scores the unit of log latency."""
    head_share: float = 0.7
    """Share of the rows each head of the ensemble sees."""
    hardware_dropout: float = 0.1
    """How often a row's hardware values are hidden, so that unknown ones are met in training."""


@dataclass(frozen=True)
class TrainedModel:
    """What training gave."""

    model: CostModel
    rows_trained: int
    rows_normalised: int
    """Rows its normalisation constants were fitted on."""
    steps: int
    final_loss: float


def fit(
    arrays: RowArrays,
    parent: Checkpoint | None,
    config: TrainConfig,
    progress: Progress | None = None,
    lock: MachineLock | None = None,
) -> TrainedModel:
    """Train a cost model on the rows that are not held out.

    The same arguments on the same machine give the same weights. Sets torch's number of threads.

    Args:
        arrays: all rows; those held out are skipped.
        parent: start from its weights and keep its normalisation constants; ``None`` starts anew.
        config: how.
        progress: told every few steps.
        lock: each step runs inside its ``busy()``, so that training waits for measurements.

    Raises:
        ValueError: no list of the training rows has two rows to compare.
    """
    lock = lock or MachineLock()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    training = np.flatnonzero(~arrays.held_out)
    model, rows_normalised = _start(arrays, training, parent, config, lock)
    chosen = head_choice(arrays.candidate, model.config.ensemble, config.head_share)
    steps = _steps(arrays, training, parent is not None, config)
    peak = config.learning_rate if parent is None else config.learning_rate_fine_tuning
    optimiser = torch.optim.AdamW(model.parameters(), peak, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: _learning_rate(step, steps)
    )
    model.train()
    loss_mean = 0.0
    for step, batch in enumerate(_batches(arrays, training, steps, rng, config)):
        with lock.busy():
            (features, mask, hardware), lists, place = assemble(arrays, chosen, batch)
            hardware = hide_hardware(hardware, batch, rng, config.hardware_dropout)
            scores = model.head_scores(features, mask, hardware)[place]
            loss = ranking_loss(scores, lists, config.noise_floor, config.magnitude)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        schedule.step()
        value = float(loss.detach())
        loss_mean = value if step == 0 else 0.95 * loss_mean + 0.05 * value
        if progress is not None and step % _PROGRESS_EVERY_STEPS == 0:
            progress((step + 1) / steps, f"step {step + 1} of {steps}, loss {loss_mean:.3f}")
    model.eval()
    return TrainedModel(model, len(training), rows_normalised, steps, loss_mean)


def score(
    model: CostModel, arrays: RowArrays, lock: MachineLock | None = None
) -> NDArray[np.float64]:
    """Score every row.

    Returns:
        Float64 [N]; higher is predicted to be faster, comparable within one group only.
    """
    lock = lock or MachineLock()
    model.eval()
    scores = np.zeros(len(arrays), np.float64)
    for start in range(0, len(arrays), _SCORING_BATCH):
        rows = np.arange(start, min(start + _SCORING_BATCH, len(arrays)))
        with lock.busy(), torch.inference_mode():
            mean, _ = model(*(torch.from_numpy(part) for part in arrays.padded(rows)))
        scores[rows] = mean.numpy()
    return scores


def _start(
    arrays: RowArrays,
    training: Indices,
    parent: Checkpoint | None,
    config: TrainConfig,
    lock: MachineLock,
) -> tuple[CostModel, int]:
    if parent is not None:
        return parent.build(), parent.rows_normalised
    model = CostModel(config.model)
    if len(training):
        with lock.busy():
            some = np.random.default_rng(config.seed).permutation(training)[:_NORMALISED_ROWS]
            model.normaliser.fit(*(torch.from_numpy(part) for part in arrays.padded(some)))
    return model, len(training)


def _steps(arrays: RowArrays, training: Indices, fine_tuning: bool, config: TrainConfig) -> int:
    epoch = sum(1 for _ in _epoch(arrays, training, np.random.default_rng(0), config))
    if epoch == 0:
        raise ValueError(
            f"nothing to learn from: no task has two of the {len(training)} training rows"
        )
    epochs = config.epochs_fine_tuning if fine_tuning else config.epochs
    return min(max(epoch * epochs, config.min_steps), config.max_steps)


def _epoch(
    arrays: RowArrays, training: Indices, rng: np.random.Generator, config: TrainConfig
) -> list[list[Indices]]:
    groups = arrays.group[training]
    batches = epoch_batches(groups, rng, config.list_size, config.lists_per_batch)
    return [[training[rows] for rows in batch] for batch in batches]


def _batches(
    arrays: RowArrays,
    training: Indices,
    steps: int,
    rng: np.random.Generator,
    config: TrainConfig,
) -> list[list[Indices]]:
    batches: list[list[Indices]] = []
    while len(batches) < steps:
        batches += _epoch(arrays, training, rng, config)
    return batches[:steps]


def _learning_rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(_WARM_UP_STEPS, steps))
    return warm * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))
