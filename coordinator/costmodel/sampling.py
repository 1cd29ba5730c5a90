"""Ranking lists for training: rows of one task on one device, in batches of several lists."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coordinator.costmodel.arrays import Indices, RowArrays
from coordinator.costmodel.loss import RankingLists

_LISTS_SORTED = 16
"""Batches among whose lists those of equal length are sought: enough to save three quarters of the
padding, few enough that batches stay mixed."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""An odd constant with well-mixed bits (2**64 over the golden ratio)."""


def head_choice(candidate: NDArray[np.uint64], heads: int, share: float) -> NDArray[np.float32]:
    """Choose which rows each head learns from.

    The choice follows from the candidate alone, so a fine-tuned head goes on with the part of the
    data it began with, and heads keep disagreeing where data is thin.

    Args:
        candidate: uint64 [N].
        heads: number of heads, E.
        share: share of the rows a head sees, 0 to 1.

    Returns:
        Float32 [N, E] of 0 and 1.
    """
    salt = (np.arange(1, heads + 1, dtype=np.uint64) * _MIX)[None, :]
    mixed = (candidate[:, None] ^ salt) * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MIX
    top = (mixed >> np.uint64(40)).astype(np.float64) / float(1 << 24)
    return (top < share).astype(np.float32)


def epoch_batches(
    groups: Indices,
    lengths: Indices,
    rng: np.random.Generator,
    list_size: int,
    lists_per_batch: int,
) -> Iterator[list[Indices]]:
    """Cut every group into random lists of about equal length and shuffle the lists.

    Args:
        groups: int64 [M], the group of each of M rows.
        lengths: int64 [M], tokens of each: batches are padded to their longest program, so lists of
            about equal length stand together.
        rng: decides all order.
        list_size: most rows of a list.
        lists_per_batch: most lists of a batch.

    Yields:
        Batches of lists of row numbers below M, each list of two rows or more; a row appears once
        an epoch at most.
    """
    lists: list[Indices] = []
    for group in np.unique(groups):
        rows = rng.permutation(np.flatnonzero(groups == group))
        parts = np.array_split(rows, math.ceil(len(rows) / list_size))
        lists += [part for part in parts if len(part) > 1]
    longest = np.array([lengths[part].max() for part in lists])
    batches: list[Indices] = []
    for some in _windows(rng.permutation(len(lists)), _LISTS_SORTED * lists_per_batch):
        alike = some[np.argsort(longest[some], kind="stable")]
        batches += _windows(alike, lists_per_batch)
    for i in rng.permutation(len(batches)):
        yield [lists[j] for j in batches[i]]


def _windows(order: Indices, size: int) -> list[Indices]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def assemble(
    arrays: RowArrays, chosen: NDArray[np.float32], batch: list[Indices]
) -> tuple[tuple[Tensor, Tensor, Tensor], RankingLists, Tensor]:
    """Build tensors for one training step.

    Args:
        arrays: all rows.
        chosen: float32 [N, E] from :func:`head_choice`.
        batch: lists of row numbers.

    Returns:
        Model inputs (features, mask, hardware) of the B rows of all lists; the padded lists; and
        int64 [G, K], which of the B rows stands where in the lists (0 in padding).
    """
    longest = max(len(rows) for rows in batch)
    at = np.zeros((len(batch), longest), np.int64)
    place = np.zeros((len(batch), longest), np.int64)
    real = np.zeros((len(batch), longest), np.bool_)
    done = 0
    for g, rows in enumerate(batch):
        at[g, : len(rows)] = rows
        place[g, : len(rows)] = np.arange(done, done + len(rows))
        real[g, : len(rows)] = True
        done += len(rows)
    features, mask, hardware = arrays.padded(np.concatenate(batch))
    lists = RankingLists(
        log_latency=torch.from_numpy(
            np.where(real, arrays.log_latency[at], np.nan).astype(np.float32)
        ),
        real=torch.from_numpy(real),
        noise=torch.from_numpy(arrays.noise[at].astype(np.float32)),
        weight=torch.from_numpy(arrays.weight[at]),
        chosen=torch.from_numpy(chosen[at]),
    )
    inputs = (torch.from_numpy(features), torch.from_numpy(mask), torch.from_numpy(hardware))
    return inputs, lists, torch.from_numpy(place)


def hide_hardware(
    hardware: Tensor, batch: list[Indices], rng: np.random.Generator, rate: float
) -> Tensor:
    """Make hardware values unknown at random, so that a model learns to do without.

    Args:
        hardware: float32 [B, H].
        batch: the lists the B rows stand in; a list's rows all lose the same values, for they are
            compared and must describe one device.
        rng: decides which.
        rate: chance of each value, and of all values of a list at once, 0 to 1.

    Returns:
        Float32 [B, H] with NaN where hidden.
    """
    hidden = rng.random((len(batch), hardware.shape[1])) < rate
    hidden |= rng.random((len(batch), 1)) < rate
    of_list = np.repeat(np.arange(len(batch)), [len(rows) for rows in batch])
    return hardware.masked_fill(torch.from_numpy(hidden[of_list]), torch.nan)
