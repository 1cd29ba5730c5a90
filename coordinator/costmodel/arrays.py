"""Training rows as arrays, stores laid end to end so that short programs cost no padding."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.dataset import TrainingRow, is_held_out
from coordinator.costmodel.feature_sets import STORES, FeatureSet
from tunefleet.features import HARDWARE_FEATURES
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
    """[S, F], raw: F is 172 for stores, ``STEP_FEATURES`` for schedule steps in their place. Stores
    stand behind a row for the whole schedule, which counts as one of them here."""
    first_store: Indices
    """[N]: where a row's stores begin in ``features``."""
    stores: Indices
    """[N], at most ``MAX_ROWS``, or ``MAX_STEPS`` of schedule steps."""
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
    scheduled: bool = False
    """Whether each program's first row is its schedule's."""

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

    def without_schedules(self) -> RowArrays:
        """Return the same programs by their stores alone."""
        if not self.scheduled:
            return self
        kept = np.ones(len(self.features), np.bool_)
        kept[self.first_store] = False
        return replace(
            self,
            features=self.features[kept],
            first_store=self.first_store - np.arange(len(self)),
            stores=self.stores - 1,
            scheduled=False,
        )

    def schedules_alone(self) -> RowArrays:
        """Return the same programs by the rows of their schedules, each as its only token.

        Raises:
            ValueError: there are none.
        """
        if not self.scheduled:
            raise ValueError("these programs have no row of their schedule")
        return replace(
            self,
            features=self.features[self.first_store],
            first_store=np.arange(len(self)),
            stores=np.ones(len(self), np.int64),
            scheduled=False,
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
    features: FeatureSet = STORES,
) -> RowArrays:
    """Convert rows to arrays.

    Trials with verdict LOST are left out: they say nothing of their candidate; so are those whose
    trace cannot be read, where one is needed. Programs with more stores than a model looks at keep
    their first ones, as on the agent.

    Args:
        rows: any order.
        noise_default: relative standard deviation assumed where a row's is not known.
        features: what the rows hold.

    Raises:
        ValueError: a feature is not finite.
    """
    kept: list[TrainingRow] = []
    blocks: list[Floats] = []
    for row in rows:
        block = None if row.verdict is Verdict.LOST else _tokens(row, features)
        if block is not None:
            kept.append(row)
            blocks.append(block)
    groups: dict[tuple[str, str, str], int] = {}
    stores = np.array([len(block) for block in blocks], np.int64)
    values = np.concatenate(blocks) if blocks else np.zeros((0, features.width), np.float32)
    if not np.isfinite(values).all():
        raise ValueError("the program features contain values that are not finite")
    hardware = np.array([row.hardware for row in kept], np.float32)
    return RowArrays(
        features=values,
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
        scheduled=features.scheduled,
    )


def _tokens(row: TrainingRow, features: FeatureSet) -> Floats | None:
    values = np.frombuffer(row.features, "<f4").reshape(row.stores, features.width)
    if features.scheduled:
        try:
            schedule = np.frombuffer(row.schedule, "<f4").reshape(1, features.width)
        except ValueError:
            return None
        values = np.concatenate([schedule, values])
    return values[: features.most].astype(np.float32, copy=False)


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
