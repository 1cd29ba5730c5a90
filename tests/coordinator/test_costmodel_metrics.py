from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from coordinator.costmodel.metrics import Groups, Values, pairwise_accuracy, top_k_score

VALUES = st.integers(-1000, 1000).map(float)


Ranked: TypeAlias = tuple[Values, Values, Groups]


@st.composite
def ranked(draw: st.DrawFn) -> Ranked:
    size = draw(st.integers(2, 40))
    scores = draw(hnp.arrays(np.float64, size, elements=VALUES))
    latency = draw(hnp.arrays(np.float64, size, elements=VALUES)) / 100
    groups = draw(hnp.arrays(np.int64, size, elements=st.integers(0, 3)))
    return scores, latency, groups


@given(ranked())
def test_reversed_scores_give_one_minus_the_accuracy(data: Ranked) -> None:
    scores, latency, groups = data
    ahead = pairwise_accuracy(scores, latency, groups)
    behind = pairwise_accuracy(-scores, latency, groups)
    assert behind.by_records == pytest.approx(1 - ahead.by_records, nan_ok=True)
    assert behind.by_list == pytest.approx(1 - ahead.by_list, nan_ok=True)


@given(ranked())
def test_accuracy_depends_on_the_order_of_scores_only(data: Ranked) -> None:
    scores, latency, groups = data
    changed = np.exp(scores / 500) * 3 + 7
    before = pairwise_accuracy(scores, latency, groups)
    # repr: NaN equals nothing, not even itself.
    assert repr(pairwise_accuracy(changed, latency, groups)) == repr(before)


@given(ranked())
def test_perfect_scores_give_one(data: Ranked) -> None:
    _, latency, groups = data
    found = pairwise_accuracy(-latency, latency, groups)
    assert found.pairs == 0 or found.by_records == found.by_list == 1.0


@given(ranked(), st.integers(1, 10))
def test_top_k_score_is_a_share_that_grows_with_k(data: Ranked, k: int) -> None:
    scores, latency, groups = data
    found = top_k_score(scores, latency, groups, k)
    assert 0 < found <= top_k_score(scores, latency, groups, k + 1) <= 1 + 1e-12


def test_accuracy_agrees_with_its_definition() -> None:
    scores = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    latency = np.log([1.0, 3.0, 4.0, 1.0, 1.0])
    groups = np.array([0, 0, 0, 1, 1])
    found = pairwise_accuracy(scores, latency, groups)
    # List 0: 2 of 3 pairs; list 1 has only a pair of equal latencies, which does not count.
    assert (found.by_records, found.pairs, found.lists) == (pytest.approx(2 / 3), 3, 1)


def test_lists_weigh_by_their_records_or_all_alike() -> None:
    scores = np.array([2.0, 1.0, 1.0, 2.0, 3.0])
    latency = np.array([0.0, 1.0, 0.0, 1.0, 2.0])
    groups = np.array([0, 0, 1, 1, 1])
    found = pairwise_accuracy(scores, latency, groups)
    assert found.by_list == pytest.approx(0.5)
    assert found.by_records == pytest.approx(2 / 5)


def test_equal_scores_count_one_half() -> None:
    found = pairwise_accuracy(np.zeros(3), np.array([0.0, 1.0, 2.0]), np.zeros(3, np.int64))
    assert found.by_records == 0.5


def test_pairs_within_the_noise_can_be_left_out() -> None:
    latency = np.array([0.0, 0.05, 1.0])
    groups = np.zeros(3, np.int64)
    noise = np.full(3, 0.05)
    assert pairwise_accuracy(-latency, latency, groups, noise).pairs == 2


def test_failed_trials_are_left_out() -> None:
    latency = np.array([0.0, math.nan, 1.0])
    assert pairwise_accuracy(-latency, latency, np.zeros(3, np.int64)).pairs == 1


def test_without_pairs_there_is_no_accuracy() -> None:
    found = pairwise_accuracy(np.zeros(1), np.zeros(1), np.zeros(1, np.int64))
    assert math.isnan(found.by_records)


def test_top_k_score_weighs_tasks() -> None:
    scores = np.array([1.0, 2.0, 2.0, 1.0])
    latency = np.log([1.0, 2.0, 1.0, 2.0])
    groups = np.array([0, 0, 1, 1])
    # Task 0 is picked wrongly (2 s instead of 1 s) and runs three times.
    assert top_k_score(scores, latency, groups, 1, {0: 3.0}) == pytest.approx(4 / 7)


def test_top_0_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        top_k_score(np.zeros(1), np.zeros(1), np.zeros(1, np.int64), 0)
