"""TenSet's multilayer perceptron: stores by themselves, summed, then ranked by LambdaRank.

Layers, loss and optimiser as in Zheng et al., "TenSet: A Large-scale Program Performance Dataset
for Learned Tensor Compilers", 2021. It sees no hardware.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.sampling import epoch_batches
from coordinator.study.rankers.base import USUAL_EFFORT, Effort, Floats, Progress

_WIDTH = 256
_EPOCHS = 50
_MAX_STEPS = 4000
_LEARNING_RATE = 7e-4
_WEIGHT_DECAY = 1e-6
_CLIP = 0.5
_LIST_SIZE = 32
_LISTS_PER_BATCH = 16
_SCORING_BATCH = 1024


class MlpRanker:
    """The perceptron, trained within tasks."""

    name = "mlp"

    def __init__(self, seed: int = 0, effort: Effort = USUAL_EFFORT) -> None:
        self._seed = seed
        self._threads = effort.threads
        self._max_steps = _MAX_STEPS if effort.steps is None else effort.steps
        self._network: _Network | None = None

    def fit(self, arrays: RowArrays, rows: Indices, progress: Progress | None = None) -> None:
        """Train for 50 epochs, or as many as the steps allow."""
        torch.set_num_threads(self._threads)
        torch.manual_seed(self._seed)
        rng = np.random.default_rng(self._seed)
        arrays = arrays.without_schedules()
        measured = rows[~np.isnan(arrays.log_latency[rows])]
        # Of either sign: the names of schedule steps are.
        network = _Network(np.abs(arrays.take(measured).features).max(axis=0, initial=1e-6))
        optimiser = torch.optim.Adam(
            network.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )
        groups, lengths = arrays.group[measured], arrays.stores[measured]
        epoch = sum(1 for _ in epoch_batches(groups, lengths, rng, _LIST_SIZE, _LISTS_PER_BATCH))
        if epoch == 0:
            raise ValueError(f"nothing to compare: no task has two of the {len(rows)} rows")
        steps, done = min(epoch * _EPOCHS, self._max_steps), 0
        while done < steps:
            for lists in epoch_batches(groups, lengths, rng, _LIST_SIZE, _LISTS_PER_BATCH):
                loss = self._loss(network, arrays, [measured[part] for part in lists])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
                optimiser.step()
                done += 1
                if progress is not None and done % 50 == 0:
                    progress(min(1.0, done / steps), f"step {done} of {steps}")
                if done == steps:
                    break
        self._network = network.eval()

    def score(self, arrays: RowArrays, rows: Indices) -> Floats:
        """Return the perceptron's output for each row."""
        assert self._network is not None, "fit first"
        arrays = arrays.without_schedules()
        scores = np.zeros(len(rows), np.float64)
        for start in range(0, len(rows), _SCORING_BATCH):
            some = slice(start, start + _SCORING_BATCH)
            with torch.inference_mode():
                scores[some] = self._network(*_inputs(arrays, rows[some])).numpy()
        return scores

    @staticmethod
    def _loss(network: _Network, arrays: RowArrays, lists: list[Indices]) -> Tensor:
        scores = network(*_inputs(arrays, np.concatenate(lists)))
        total, done = torch.zeros(()), 0
        for rows in lists:
            log_latency = torch.from_numpy(arrays.log_latency[rows].astype(np.float32))
            total = total + _lambda_rank(scores[done : done + len(rows)], log_latency)
            done += len(rows)
        return total / len(lists)


class _Network(nn.Module):
    largest: Tensor

    def __init__(self, largest: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        super().__init__()
        self.register_buffer("largest", torch.from_numpy(largest))
        self.store = nn.Sequential(
            nn.Linear(len(largest), _WIDTH),
            nn.ReLU(),
            nn.Linear(_WIDTH, _WIDTH),
            nn.ReLU(),
        )
        self.first, self.second = nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Linear(_WIDTH, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        stores = self.store(features / self.largest) * mask.unsqueeze(-1)
        x = stores.sum(dim=1)
        x = torch.relu(self.first(x)) + x
        x = torch.relu(self.second(x)) + x
        scores: Tensor = self.out(x).squeeze(-1)
        return scores


def _inputs(arrays: RowArrays, rows: Indices) -> tuple[Tensor, Tensor]:
    features, mask, _ = arrays.padded(rows)
    return torch.from_numpy(features), torch.from_numpy(mask)


def _lambda_rank(scores: Tensor, log_latency: Tensor) -> Tensor:
    """Compute LambdaRank's loss for one list (Wang et al., "The LambdaLoss Framework", 2018).

    Args:
        scores: float32 [K].
        log_latency: float32 [K].

    Returns:
        Float32 scalar: the logistic loss of each pair, weighted by what swapping it would change of
        the list's discounted gain, gains being shares of the best throughput.
    """
    gain = torch.exp(log_latency.min() - log_latency)
    order = torch.argsort(scores, descending=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    discount = 1.0 / torch.log2(rank.to(scores.dtype) + 2.0)
    ideal = torch.sort(gain, descending=True).values
    positions = torch.arange(len(order), dtype=scores.dtype)
    normal = (ideal / torch.log2(positions + 2.0)).sum()
    weight = (gain[:, None] - gain[None, :]).abs() * (discount[:, None] - discount[None, :]).abs()
    faster = (gain[:, None] > gain[None, :]).to(scores.dtype)
    margin = scores[:, None] - scores[None, :]
    return (faster * weight * nn.functional.softplus(-margin)).sum() / normal
