"""Training rows as arrays, stores laid end to end so that short programs cost no padding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.dataset import TrainingRow, is_held_out
from tunefleet.features import HARDWARE_FEATURES, MAX_STORES, PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Verdict

Floats: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]

_VERDICT_WEIGHT = {Verdict.OK: 1.0}
_DOUBTFUL_WEIGHT = 0.3
"""A disturbed measurement still tells fast from slow, but deserves less trust."""
_FAILED_WEIGHT = 0.5
_MAX_NOISE = 0.5
"""Above this a standard deviation of a few samples says only "very noisy"."""


@dataclass(frozen=True)
class RowArrays:
    """Training rows by column; N rows, S stores altogether."""

    features: Floats
    """[S, F], raw: F is 172 for stores, ``STEP_FEATURES`` for schedule steps in their place."""
    first_store: Indices
    """[N]: where a row's stores begin in ``features``."""
    stores: Indices
    """[N], at most ``MAX_STORES``, or ``MAX_STEPS`` of schedule steps."""
    hardware: Floats
    """[N, H], raw, NaN where unknown."""
    log_latency: NDArray[np.float64]
    """[N], natural logarithm of seconds; NaN where a trial failed."""
    noise: NDArray[np.float64]
    """[N], relative standard deviation."""
    weight: Floats
    """[N], trust in the measurement, by verdict."""
    group: Indices
    """[N]: the ranking list, numbered from 0 in order of first appearance."""
    group_keys: tuple[tuple[str, str, str], ...]
    """(workload, target, device) of each list."""
    candidate: NDArray[np.uint64]
    """[N], the low 64 bits of the structural hash."""
    held_out: NDArray[np.bool_]
    """[N]: never trained on."""

    def __len__(self) -> int:
        return len(self.stores)

    def take(self, rows: Indices) -> RowArrays:
        """Return the arrays of some rows only; groups keep their numbers.

        Args:
            rows: int64 [B], which rows, in their new order.
        """
        stores = self.stores[rows]
        first = np.concatenate([[0], np.cumsum(stores)[:-1]]).astype(np.int64)[: len(rows)]
        steps = np.arange(int(stores.sum())) - np.repeat(first, stores)
        return replace(
            self,
            features=self.features[np.repeat(self.first_store[rows], stores) + steps],
            first_store=first,
            stores=stores,
            hardware=self.hardware[rows],
            log_latency=self.log_latency[rows],
            noise=self.noise[rows],
            weight=self.weight[rows],
            group=self.group[rows],
            candidate=self.candidate[rows],
            held_out=self.held_out[rows],
        )

    def padded(self, rows: Indices) -> tuple[Floats, Floats, Floats]:
        """Assemble model inputs.

        Args:
            rows: int64 [B], which rows.

        Returns:
            Features [B, L, F] padded with zeros, mask [B, L] and hardware [B, H], where L is the
            largest number of stores among the rows.
        """
        stores = self.stores[rows]
        steps = np.arange(max(1, int(stores.max(initial=1))))
        real = steps[None, :] < stores[:, None]
        features = np.zeros((*real.shape, self.features.shape[1]), np.float32)
        features[real] = self.features[(self.first_store[rows][:, None] + steps[None, :])[real]]
        return features, real.astype(np.float32), self.hardware[rows]


def to_arrays(
    rows: Iterable[TrainingRow],
    noise_default: float = 0.03,
    *,
    width: int = PROGRAM_FEATURES_PER_STORE,
    most: int = MAX_STORES,
) -> RowArrays:
    """Convert rows to arrays.

    Trials with verdict LOST are left out: they say nothing of their candidate. Programs with more
    than ``most`` stores keep their first ones, as on the agent.

    Args:
        rows: any order.
        noise_default: relative standard deviation assumed where a row's is not known.
        width: values a store, or whatever the rows hold in place of stores.
        most: stores a program may have.

    Raises:
        ValueError: a feature is not finite.
    """
    kept = [row for row in rows if row.verdict is not Verdict.LOST]
    groups: dict[tuple[str, str, str], int] = {}
    blocks = [_features(row, width)[:most] for row in kept]
    stores = np.array([len(block) for block in blocks], np.int64)
    features = np.concatenate(blocks) if blocks else np.zeros((0, width), np.float32)
    if not np.isfinite(features).all():
        raise ValueError("the program features contain values that are not finite")
    hardware = np.array([row.hardware for row in kept], np.float32)
    return RowArrays(
        features=features,
        first_store=np.concatenate([[0], np.cumsum(stores)[:-1]]).astype(np.int64)[: len(kept)],
        stores=stores,
        hardware=hardware.reshape(len(kept), len(HARDWARE_FEATURES)),
        log_latency=np.array([_log_latency(row) for row in kept], np.float64),
        noise=np.array([_noise(row, noise_default) for row in kept], np.float64),
        weight=np.array([_weight(row) for row in kept], np.float32),
        group=np.array([groups.setdefault(row.list_key, len(groups)) for row in kept], np.int64),
        group_keys=tuple(groups),
        candidate=np.array([int(row.candidate, 16) & (2**64 - 1) for row in kept], np.uint64),
        held_out=np.array([is_held_out(row.candidate) for row in kept], np.bool_),
    )


def _features(row: TrainingRow, width: int) -> Floats:
    values = np.frombuffer(row.features, "<f4").reshape(row.stores, width)
    return values.astype(np.float32, copy=False)


def _log_latency(row: TrainingRow) -> float:
    if row.latency_s is None or not row.verdict.has_latency:
        return math.nan
    return math.log(row.latency_s)


def _noise(row: TrainingRow, default: float) -> float:
    return default if math.isnan(row.noise) else min(max(row.noise, 0.0), _MAX_NOISE)


def _weight(row: TrainingRow) -> float:
    if not row.verdict.has_latency:
        return _FAILED_WEIGHT
    return _VERDICT_WEIGHT.get(row.verdict, _DOUBTFUL_WEIGHT)
