"""The stopping rule and what is done about spoilt samples, on machines made of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, cycle, repeat

import pytest

from agent.measure.sampling import Instruments, Sampled, Sampling, is_enough
from tunefleet.leases import MeasurePolicy

_POLICY = MeasurePolicy(repeat=3, max_repeat=20, precision=0.01, slow_ratio=1.25, max_attempts=3)
_FIXED = MeasurePolicy(repeat=4, max_repeat=4, max_attempts=3)
_SAMPLE_S = 0.005


class _Machine:
    """Hands out samples, canary readings and waiting times from lists; sampling takes time."""

    def __init__(
        self,
        samples: Iterable[float] = repeat(1.0),
        canary: Iterable[float] = repeat(1.0),
        waits: Iterable[float] = repeat(0.0),
    ) -> None:
        self._samples, self._canary, self._waits = iter(samples), iter(canary), iter(waits)
        self.now = 0.0
        self.waited = 0.0
        self.rests: list[float] = []

    def take(self, count: int) -> list[float]:
        self.now += count * _SAMPLE_S
        self.waited += next(self._waits) * _SAMPLE_S
        return [next(self._samples) for _ in range(count)]

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.now += seconds

    def sample(
        self,
        policy: MeasurePolicy = _POLICY,
        best_s: float | None = None,
        usual_s: float | None = 1.0,
    ) -> Sampled:
        tools = Instruments(
            take=self.take,
            canary=lambda: next(self._canary),
            waited=lambda: self.waited,
            clock=lambda: self.now,
            rest=self.rest,
        )
        return Sampling(policy, tools, best_s, usual_s).run()


def test_five_equal_samples_are_enough() -> None:
    assert _Machine().sample().samples_s == [1.0] * 5


def test_three_suffice_for_one_that_is_clearly_slower() -> None:
    assert _Machine(repeat(1.3)).sample(best_s=1.0).samples_s == [1.3] * 3


def test_two_suffice_for_one_that_is_hopeless() -> None:
    assert _Machine(repeat(3.1)).sample(best_s=1.0).samples_s == [3.1] * 2


def test_one_fast_sample_keeps_it_in_the_race() -> None:
    sampled = _Machine(chain([1.3, 1.3, 1.0], repeat(1.3))).sample(best_s=1.0)
    assert len(sampled.samples_s) > 3


def test_noisy_ones_are_sampled_until_the_interval_is_narrow() -> None:
    steady = _Machine(cycle([1.0, 1.001])).sample()
    noisy = _Machine(cycle([1.0, 1.03, 0.995, 1.005, 1.001, 1.002])).sample()
    assert len(steady.samples_s) < len(noisy.samples_s) < _POLICY.max_repeat


def test_sampling_goes_on_while_the_best_is_within_the_interval() -> None:
    alone = _Machine(cycle([0.995, 1.005])).sample(best_s=0.9)
    contested = _Machine(cycle([0.995, 1.005])).sample(best_s=1.0)
    assert len(alone.samples_s) < len(contested.samples_s) == _POLICY.max_repeat


def test_the_budget_ends_it() -> None:
    assert not is_enough(_POLICY, [1.0, 1.2, 1.4], None, 0.299)
    assert is_enough(_POLICY, [1.0, 1.2, 1.4], None, 0.300)


def test_a_fixed_policy_takes_exactly_what_it_says() -> None:
    assert len(_Machine(repeat(9.0)).sample(_FIXED, best_s=1.0).samples_s) == 4


def test_a_stretch_with_a_slow_canary_is_measured_again() -> None:
    machine = _Machine(
        samples=chain([7.0] * 4, repeat(1.0)), canary=chain([1.0, 1.5, 1.0], repeat(1.0))
    )
    sampled = machine.sample(_FIXED)
    assert (sampled.samples_s, sampled.attempts, sampled.spoilt) == ([1.0] * 4, 2, False)
    assert len(machine.rests) == 1
    assert sampled.canary_s == [1.0, 1.5, 1.0, 1.0]


def test_a_sample_that_waited_for_a_core_is_left_out() -> None:
    machine = _Machine(samples=chain([1.0, 5.0], repeat(1.0)), waits=chain([0, 0.8], repeat(0)))
    sampled = machine.sample()
    assert sampled.samples_s == [1.0] * 5
    assert not sampled.spoilt
    assert sampled.waited_share == pytest.approx(0.8 / 6)


def test_attempts_are_bounded_and_the_samples_kept() -> None:
    machine = _Machine(canary=repeat(1.5))
    sampled = machine.sample(_FIXED)
    assert sampled.spoilt
    assert sampled.attempts == _FIXED.max_attempts
    assert len(sampled.samples_s) == _FIXED.max_attempts * 4
    assert machine.rests == sorted(machine.rests)


def test_good_samples_are_kept_when_later_ones_stay_spoilt() -> None:
    machine = _Machine(
        samples=chain([1.0, 1.1, 1.2], repeat(9.0)), canary=chain([1.0, 1.0], repeat(1.5))
    )
    sampled = machine.sample()
    assert (sampled.samples_s, sampled.spoilt) == ([1.0, 1.1, 1.2], False)


def test_without_a_history_the_fastest_reading_is_the_usual_one() -> None:
    machine = _Machine(canary=chain([1.5, 1.0], repeat(1.0)))
    assert machine.sample(_FIXED, usual_s=None).attempts == 1
    assert _Machine(canary=repeat(1.5)).sample(_FIXED, usual_s=None).attempts == 1
    assert _Machine(canary=chain([1.0], repeat(1.5))).sample(_FIXED, usual_s=None).spoilt
