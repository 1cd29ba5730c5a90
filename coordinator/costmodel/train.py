"""Training: from scratch, or on from a parent's weights."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.averaging import Average
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.loss import LossConfig, latency_loss, ranking_loss
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.sampling import assemble, epoch_batches, head_choice, hide_hardware
from coordinator.costmodel.team import Team
from coordinator.costmodel.training_state import Learner, TrainingState
from tunefleet.machine_lock import MachineLock

_SCORING_BATCH = 512
"""Rows scored at once: well under a second, so that a waiting measurement is not kept."""
_WARM_UP_STEPS = 10
_PROGRESS_EVERY_STEPS = 10
"""About once a second of work."""
_SAVE_EVERY_S = 30.0
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
    loss: LossConfig = field(default_factory=LossConfig)
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
    latency_weight: float = 0.3
    """Of guessing the latency itself beside ranking."""
    averaging: float = 0.998
    """Decay of the average of weights over steps that becomes the model (Polyak averaging)."""
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


@dataclass(frozen=True)
class Material:
    """Which rows to learn from, where that is not all that are not held out."""

    rows: Indices
    """Int64 [M]."""
    replay: Indices | None = None
    """Int64 [R]: rows of what was learned before. Half of each batch's lists come from them, so
    that fine-tuning does not forget."""


def fit(
    arrays: RowArrays,
    parent: Checkpoint | None,
    config: TrainConfig,
    progress: Progress | None = None,
    lock: MachineLock | None = None,
    *,
    material: Material | None = None,
    state_path: Path | None = None,
    team: Team | None = None,
) -> TrainedModel:
    """Train a cost model.

    The same arguments on the same machine give the same weights. Sets torch's number of threads.

    Args:
        arrays: all rows.
        parent: start from its weights and keep its normalisation constants; ``None`` starts anew.
        config: how.
        progress: told every few steps. It may end the training by raising: the state is kept then.
        lock: each step runs inside its ``busy()``, so that training waits for measurements.
        material: rows to learn from; by default all that are not held out.
        state_path: file to keep the state of the training in; if one of the same training is
            there, it goes on from that. Removed at the end.
        team: the processes that train together, each called with the same arguments.

    Raises:
        ValueError: no list of the training rows has two rows to compare, or the model is for rows
            of schedules where there are none, or the other way round.
    """
    lock, team = lock or MachineLock(), team or Team()
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    material = material or Material(np.flatnonzero(~arrays.held_out))
    model, rows_normalised = _start(arrays, material.rows, parent, config, lock)
    chosen = head_choice(arrays.candidate, model.config.ensemble, config.head_share)
    steps = _steps(arrays, material.rows, parent is not None, config)
    peak = config.learning_rate if parent is None else config.learning_rate_fine_tuning
    optimiser = torch.optim.AdamW(
        model.parameters(), peak, weight_decay=config.weight_decay, fused=True
    )
    batches = _batches(arrays, material, steps, rng, config)
    trainer = _Trainer(arrays, chosen, model, optimiser, config, team)
    average = Average(model, config.averaging)
    keeper = _Keeper(state_path, team.leads, Learner(model, optimiser, average))
    begin, loss_mean = keeper.resume(lambda: _key(arrays, parent, config, batches))
    model.train()
    for step in range(begin, steps):
        for settings in optimiser.param_groups:
            settings["lr"] = peak * _learning_rate(step, steps)
        with lock.busy():
            value = trainer.learn(batches[step], step)
            average.update(step)
        loss_mean = value if step == 0 else 0.95 * loss_mean + 0.05 * value
        if progress is not None and step % _PROGRESS_EVERY_STEPS == 0:
            with keeper.kept_at_the_end(step + 1, loss_mean):
                progress((step + 1) / steps, f"step {step + 1} of {steps}, loss {loss_mean:.3f}")
        keeper.keep_if_due(step + 1, loss_mean)
    keeper.forget()
    average.apply()
    model.eval()
    return TrainedModel(model, len(material.rows), rows_normalised, steps, loss_mean)


class _Keeper:
    """Keeps the state of a training in a file, where one is wanted."""

    def __init__(self, path: Path | None, leads: bool, learner: Learner) -> None:
        self._path = path
        self._leads = leads
        self._learner = learner
        self._key = ""
        self._kept_at = time.monotonic()

    def resume(self, key: Callable[[], str]) -> tuple[int, float]:
        """Put the training where it stood; returns the steps done and the loss."""
        if self._path is None:
            return 0, 0.0
        self._key = key()
        state = TrainingState.load(self._path, self._key)
        if state is None:
            return 0, 0.0
        state.restore(self._learner)
        return state.step, state.loss

    @contextmanager
    def kept_at_the_end(self, done: int, loss: float) -> Iterator[None]:
        """Keep the state if the training ends here."""
        try:
            yield
        except BaseException:
            self._keep(done, loss)
            raise

    def keep_if_due(self, done: int, loss: float) -> None:
        if time.monotonic() - self._kept_at > _SAVE_EVERY_S:
            self._keep(done, loss)
            self._kept_at = time.monotonic()

    def forget(self) -> None:
        if self._path is not None and self._leads:
            self._path.unlink(missing_ok=True)

    def _keep(self, done: int, loss: float) -> None:
        if self._path is not None and self._leads:
            state = TrainingState.of(self._key, done, loss, self._learner)
            state.save(self._path)


@dataclass(frozen=True)
class _Trainer:
    arrays: RowArrays
    chosen: NDArray[np.float32]
    model: CostModel
    optimiser: torch.optim.AdamW
    config: TrainConfig
    team: Team

    def learn(self, batch: list[Indices], step: int) -> float:
        """Learn from one batch; returns its loss."""
        mine = batch[self.team.rank :: self.team.size]
        rows = sum(len(part) for part in mine)
        all_rows = self.team.share(rows)
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros(())
        if mine:
            # A mean over rows; of a team's parts, each counts by its rows.
            loss = self._loss(mine, step) * (rows / all_rows)
            loss.backward()  # type: ignore[no-untyped-call]
        self.team.sum_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return float(loss.detach())

    def _loss(self, batch: list[Indices], step: int) -> torch.Tensor:
        config = self.config
        (features, mask, hardware), lists, place = assemble(self.arrays, self.chosen, batch)
        # From the step's number, so that a training that is resumed hides and drops the same.
        rng = np.random.default_rng((config.seed, step, self.team.rank))
        hardware = hide_hardware(hardware, batch, rng, config.hardware_dropout)
        torch.manual_seed(int(rng.integers(2**31)))
        embedded = self.model.embed(features, mask, hardware)
        loss = ranking_loss(self.model.heads(embedded)[place], lists, config.loss)
        if config.latency_weight > 0:
            guess = self.model.log_latency(embedded)[place]
            off = latency_loss(guess, lists, self.model.latency_mean, self.model.latency_std)
            loss = loss + config.latency_weight * off
        return loss


def _key(
    arrays: RowArrays,
    parent: Checkpoint | None,
    config: TrainConfig,
    batches: list[list[Indices]],
) -> str:
    """Name a training by everything that decides its outcome."""
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for column in (arrays.features, arrays.hardware, arrays.log_latency, arrays.weight):
        digest.update(np.ascontiguousarray(column).tobytes())
    for part in (rows for batch in batches for rows in batch):
        digest.update(part.tobytes())
    for name, weight in sorted((parent.weights if parent else {}).items()):
        digest.update(name.encode() + weight.tobytes())
    return digest.hexdigest()


def score(
    model: CostModel, arrays: RowArrays, lock: MachineLock | None = None
) -> NDArray[np.float64]:
    """Score every row.

    Returns:
        Float64 [N]; higher is predicted to be faster, comparable within one group only.
    """
    scores = head_scores(model, arrays, np.arange(len(arrays)), lock)
    return np.asarray(scores.mean(axis=1), np.float64)


def head_scores(
    model: CostModel, arrays: RowArrays, rows: Indices, lock: MachineLock | None = None
) -> NDArray[np.float64]:
    """Score some rows with each head of the ensemble.

    Returns:
        Float64 [B, E]; higher is predicted to be faster, comparable within one group only.
    """
    lock = lock or MachineLock()
    model.eval()
    scores = np.zeros((len(rows), model.config.ensemble), np.float64)
    # Programs of equal length side by side cost no padding.
    order = np.argsort(arrays.stores[rows], kind="stable")
    for start in range(0, len(rows), _SCORING_BATCH):
        some = order[start : start + _SCORING_BATCH]
        with lock.busy(), torch.inference_mode():
            inputs = (torch.from_numpy(part) for part in arrays.padded(rows[some]))
            scores[some] = model.head_scores(*inputs).numpy()
    return scores


def _start(
    arrays: RowArrays,
    training: Indices,
    parent: Checkpoint | None,
    config: TrainConfig,
    lock: MachineLock,
) -> tuple[CostModel, int]:
    wanted = config.model if parent is None else parent.config
    if wanted.scheduled != arrays.scheduled:
        raise ValueError(
            "the model and the programs it would learn from differ in whether there is a row of "
            f"the schedule: {wanted.scheduled} and {arrays.scheduled}"
        )
    if parent is not None:
        return parent.build(), parent.rows_normalised
    model = CostModel(config.model)
    if len(training):
        with lock.busy():
            some = np.random.default_rng(config.seed).permutation(training)[:_NORMALISED_ROWS]
            features, mask, hardware = (torch.from_numpy(part) for part in arrays.padded(some))
            log_latency = torch.from_numpy(arrays.log_latency[some].astype(np.float32))
            model.fit_normalisation(features, mask, hardware, log_latency)
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
    lengths = arrays.stores[training]
    batches = epoch_batches(groups, lengths, rng, config.list_size, config.lists_per_batch)
    return [[training[rows] for rows in batch] for batch in batches]


def _batches(
    arrays: RowArrays,
    material: Material,
    steps: int,
    rng: np.random.Generator,
    config: TrainConfig,
) -> list[list[Indices]]:
    batches = _stream(arrays, material.rows, steps, rng, config)
    if material.replay is None or not len(material.replay):
        return batches
    replayed = _stream(arrays, material.replay, steps, rng, config)
    return [new + old[: max(1, len(new))] for new, old in zip(batches, replayed, strict=True)]


def _stream(
    arrays: RowArrays, rows: Indices, steps: int, rng: np.random.Generator, config: TrainConfig
) -> list[list[Indices]]:
    batches: list[list[Indices]] = []
    while len(batches) < steps:
        epoch = _epoch(arrays, rows, rng, config)
        if not epoch:
            raise ValueError(f"nothing to compare: no task has two of the {len(rows)} rows")
        batches += epoch
    return batches[:steps]


def _learning_rate(step: int, steps: int) -> float:
    warm = min(1.0, (step + 1) / min(_WARM_UP_STEPS, steps))
    return warm * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))
