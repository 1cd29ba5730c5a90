"""The ranking loss: within one task on one device, the faster program should score higher."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

_FAILED_MARGIN = 1.386
"""ln 4: a failed candidate counts as four times slower than the slowest measured of its list."""
_MAX_LOG_RATIO = 2.0
"""Beyond a factor of e^2 a pair is decided; it should not drown the close ones."""


@dataclass(frozen=True)
class RankingLists:
    """G lists of up to K rows, padded; a list never mixes tasks or devices."""

    log_latency: Tensor
    """Float32 [G, K], NaN for failed trials and padding."""
    real: Tensor
    """Bool [G, K], False for padding."""
    noise: Tensor
    """Float32 [G, K], relative standard deviation."""
    weight: Tensor
    """Float32 [G, K], trust by verdict."""
    chosen: Tensor
    """Float32 [G, K, E], 1 where a head learns from a row."""


class Weighting(StrEnum):
    """How much a pair counts."""

    RATIO = "ratio"
    """By the logarithm of its latencies' ratio."""
    EVEN = "even"
    """All the same, as in RankNet (Burges et al., 2005)."""
    TOP = "top"
    """By the ratio, and by how close the faster of the two comes to the list's best."""


@dataclass(frozen=True)
class LossConfig:
    """What training minimises."""

    noise_floor: float = 0.02
    """Smallest difference of log latencies that counts."""
    magnitude: float = 0.1
    """Weight of a second term that pulls score differences towards differences of log latency, so
    that scores, and with them the spread of heads, have a unit."""
    order: float = 1.0
    """Weight of the logistic term; at 0 only differences of log latency are fitted."""
    weighting: Weighting = Weighting.RATIO


def ranking_loss(scores: Tensor, lists: RankingLists, config: LossConfig) -> Tensor:
    """Logistic loss over pairs further apart than the noise.

    Args:
        scores: float32 [G, K, E].
        lists: what was measured.
        config: how pairs count.

    Returns:
        Float32 scalar; lists count by their number of rows.
    """
    faster, gap, value = _pairs(lists, config.noise_floor)
    weight = faster
    if config.weighting is not Weighting.EVEN:
        weight = weight * gap.clamp(max=_MAX_LOG_RATIO)
    if config.weighting is Weighting.TOP:
        best = torch.where(lists.real, value, torch.full_like(value, torch.inf)).amin(
            dim=1, keepdim=True
        )
        weight = weight * torch.exp(best - value).clamp(max=1.0).unsqueeze(2)
    weight = weight * lists.weight.unsqueeze(2) * lists.weight.unsqueeze(1)
    # [G, K, K, E]: row i against row j, for each head.
    both = lists.chosen.unsqueeze(2) * lists.chosen.unsqueeze(1) * weight.unsqueeze(-1)
    margin = scores.unsqueeze(2) - scores.unsqueeze(1)
    error = torch.nn.functional.softplus(-margin)
    off = torch.nn.functional.smooth_l1_loss(
        margin, gap.unsqueeze(-1).expand_as(margin), reduction="none"
    )
    per_list = (both * (config.order * error + config.magnitude * off)).sum(dim=(1, 2)) / both.sum(
        dim=(1, 2)
    ).clamp(min=1e-6)
    rows = lists.real.sum(dim=1, keepdim=True).to(scores.dtype)
    return (per_list * rows).sum() / (rows.sum() * scores.shape[-1])


def latency_loss(guess: Tensor, lists: RankingLists, mean: Tensor, std: Tensor) -> Tensor:
    """Huber loss of a guess at the logarithm of the latency.

    Args:
        guess: float32 [G, K], in standard deviations from the mean.
        lists: what was measured.
        mean: float32 scalar, of the logarithm of latencies.
        std: float32 scalar, likewise.

    Returns:
        Float32 scalar, the mean over all rows; failed trials have no latency to miss. Means over
        parts, weighted by rows, give the mean over the whole.
    """
    known = lists.real & ~torch.isnan(lists.log_latency)
    wanted = torch.where(known, (lists.log_latency - mean) / std, guess.detach())
    off = torch.nn.functional.smooth_l1_loss(guess, wanted, reduction="none")
    return (off * known).sum() / lists.real.sum().clamp(min=1)


def _pairs(lists: RankingLists, noise_floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return [G, K, K]: 1 where row i is faster than row j beyond noise, and by how much; and
    [G, K], the log latency of each, failed ones' included."""
    measured = ~torch.isnan(lists.log_latency)
    known = torch.where(measured, lists.log_latency, torch.full_like(lists.log_latency, -1e9))
    slowest = known.amax(dim=1, keepdim=True)
    failed = lists.real & ~measured
    value = torch.where(failed, slowest + _FAILED_MARGIN, lists.log_latency.nan_to_num())
    gap = value.unsqueeze(1) - value.unsqueeze(2)
    noise = torch.where(measured, lists.noise, torch.zeros_like(lists.noise))
    apart = (noise.unsqueeze(1).square() + noise.unsqueeze(2).square()).sqrt()
    real = lists.real.unsqueeze(1) & lists.real.unsqueeze(2)
    faster = real & (gap > apart.clamp(min=noise_floor))
    return faster.to(value.dtype), gap.clamp(min=0.0), value
