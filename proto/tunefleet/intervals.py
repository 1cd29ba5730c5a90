"""How well a few samples fix the median they were drawn around."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

CONFIDENCE = 0.9
"""Five samples are the fewest whose extremes enclose the median so surely."""


def median_interval(
    samples: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return an interval of the median that assumes nothing of the samples' distribution.

    The number of n independent samples below the median is binomial with p = 1/2, so the k-th
    smallest and the k-th largest enclose it with probability ``1 - 2 P(B(n, 1/2) < k)`` (David and
    Nagaraja, Order Statistics, 3rd edition, section 7.1). The largest k that reaches the
    confidence is taken. Fewer than five samples cannot reach 0.9: their extremes are returned,
    which enclose the median with probability ``1 - 2 ** (1 - n)``.

    Args:
        samples: at least one value, in any order.
        confidence: in (0, 1).

    Returns:
        Lower and upper end, in the samples' unit.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("there is no sample to take the median of")
    ordered = sorted(samples)
    count = len(ordered)
    rank = 1
    # In whole numbers: of a thousand samples, they are beyond what a float can hold.
    ways = outside = 1
    while rank < (count + 1) // 2:
        ways = ways * (count - rank + 1) // rank
        outside += ways
        if 1 - outside / 2 ** (count - 1) < confidence:
            break
        rank += 1
    return ordered[rank - 1], ordered[count - rank]


def relative_half_width(samples: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """Return half the width of the median's interval as a share of the median.

    Raises:
        ValueError: there is no sample.
    """
    low, high = median_interval(samples, confidence)
    return (high - low) / 2 / statistics.median(samples)
