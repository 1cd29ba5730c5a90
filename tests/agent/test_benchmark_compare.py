"""Comparing outputs with the reference."""

from __future__ import annotations

import numpy as np
import pytest

from agent.benchmark.compare import max_abs_error


def test_the_largest_difference_of_any_output_counts() -> None:
    reference = [np.zeros(3, np.float32), np.ones((2, 2), np.float32)]
    outputs = [np.array([0, 0.25, 0], np.float32), np.full((2, 2), 0.5, np.float32)]
    assert max_abs_error(outputs, reference) == 0.5


def test_integers_do_not_overflow() -> None:
    assert max_abs_error([np.array([250], np.uint8)], [np.array([255], np.uint8)]) == 5


def test_equal_infinities_and_nans_agree() -> None:
    values = np.array([np.inf, -np.inf, np.nan, 1.0])
    assert max_abs_error([values], [values.copy()]) == 0.0


@pytest.mark.parametrize(
    ("output", "reference"),
    [
        ([np.nan, 1.0], [0.0, 1.0]),
        ([0.0, 1.0], [np.nan, 1.0]),
        ([np.inf, 1.0], [-np.inf, 1.0]),
    ],
)
def test_a_value_that_is_not_finite_on_one_side_is_an_error(
    output: list[float], reference: list[float]
) -> None:
    with pytest.raises(ValueError, match="not finite"):
        max_abs_error([np.array(output)], [np.array(reference)])


def test_a_missing_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="1 outputs instead of 2"):
        max_abs_error([np.zeros(1)], [np.zeros(1), np.zeros(1)])
