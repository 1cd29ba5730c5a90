from __future__ import annotations

import math
import random

import pytest

from tunefleet.intervals import median_interval, relative_half_width


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # Ranks from tables of distribution-free intervals of the median at 90 %.
    [(5, 1, 5), (6, 1, 6), (7, 1, 7), (8, 2, 7), (11, 3, 9), (20, 6, 15)],
)
def test_ranks_are_those_of_the_tables(count: int, low: int, high: int) -> None:
    samples = [float(n) for n in range(1, count + 1)]
    random.Random(1).shuffle(samples)
    assert median_interval(samples, 0.9) == (low, high)


def test_few_samples_give_their_extremes() -> None:
    assert median_interval([3.0, 1.0]) == (1.0, 3.0)
    assert median_interval([2.0]) == (2.0, 2.0)


def test_no_sample_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sample"):
        median_interval([])


def test_it_encloses_the_median_as_often_as_it_says() -> None:
    rng = random.Random(2)
    hits = 0
    for _ in range(2000):
        low, high = median_interval([rng.expovariate(1.0) for _ in range(9)], 0.9)
        hits += low <= math.log(2) <= high
    assert 0.9 <= hits / 2000 <= 0.98  # nine samples reach 0.961


def test_width_is_relative_to_the_median() -> None:
    assert relative_half_width([0.9, 1.0, 1.1]) == pytest.approx(0.1)


@pytest.mark.parametrize("count", [1_031, 10_000])
def test_there_may_be_more_samples_than_a_float_can_count_the_orders_of(count: int) -> None:
    low, high = median_interval([float(n) for n in range(count)])
    assert low < count / 2 < high
    assert high - low < 2 * count**0.5
