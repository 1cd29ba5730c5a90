"""Trials: their names and their latency."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunefleet.trials import Trial, Verdict, trial_id

WITH_LATENCY = [Verdict.OK, Verdict.NOISY, Verdict.CONTENDED, Verdict.THROTTLED]
hex_names = st.text("0123456789abcdef", min_size=1, max_size=32)
keys = st.tuples(hex_names, hex_names, st.integers(0, 99))


def trial(verdict: Verdict, samples_s: tuple[float, ...]) -> Trial:
    return Trial("t", "lease", "c", "[[],[]]", verdict, samples_s)


@given(
    st.sampled_from(WITH_LATENCY),
    st.lists(st.floats(1e-9, 10.0), min_size=1).map(tuple),
)
def test_latency_is_the_median_sample(verdict: Verdict, samples_s: tuple[float, ...]) -> None:
    assert trial(verdict, samples_s).latency_s == statistics.median(samples_s)


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - set(WITH_LATENCY)))
def test_samples_of_a_failed_trial_give_no_latency(verdict: Verdict) -> None:
    assert trial(verdict, (0.001,)).latency_s is None


@pytest.mark.parametrize("verdict", list(Verdict))
def test_without_samples_there_is_no_latency(verdict: Verdict) -> None:
    assert trial(verdict, ()).latency_s is None


def test_one_outlier_does_not_move_the_latency() -> None:
    assert trial(Verdict.OK, (0.001, 0.001, 5.0)).latency_s == 0.001


@given(keys)
def test_a_trial_sent_again_has_the_same_name(key: tuple[str, str, int]) -> None:
    assert trial_id(*key) == trial_id(*key)


@given(keys, keys)
def test_different_trials_have_different_names(
    one: tuple[str, str, int], other: tuple[str, str, int]
) -> None:
    assert (trial_id(*one) == trial_id(*other)) == (one == other)
