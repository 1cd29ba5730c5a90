"""What a round of a task is expected to gain."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from store_samples import PROFILE, TARGET, UNMEASURED
from task_samples import progress

from coordinator.campaigns.gains import Outlook, reachable_rate
from coordinator.state.records import TaskProgress
from tunefleet.devices import MeasuredProfile

ONE_CORE = '{"kind":"llvm","mcpu":"znver4","num-cores":1}'


def gain(task: TaskProgress, *others: TaskProgress, trials: int = 16) -> float:
    return Outlook([task, *others]).gain_s(task, trials)


def test_before_anything_is_known_a_second_round_is_expected_to_bring_a_seventh() -> None:
    assert gain(progress("a", 1.0)) == pytest.approx(0.14, abs=0.01)


def test_rounds_are_expected_to_bring_ever_less() -> None:
    steady = [progress("a", *[1.0] * rounds) for rounds in range(1, 8)]
    gains = [gain(task) for task in steady]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] < 0.01


def test_the_sizes_of_rounds_do_not_change_what_trials_promise() -> None:
    long, short = progress("a", 1.0, 0.5), progress("a", 1.1, 1.0, 0.7, 0.5, round_trials=8)
    assert long.trials == short.trials
    assert gain(long) == pytest.approx(gain(short))


def test_fewer_trials_promise_less() -> None:
    task = progress("a", 2.0, 1.0)
    few, many = gain(task, trials=4), gain(task, trials=16)
    assert 0.25 * many < few < 0.5 * many, "the first of them find more than the last"


def test_a_campaign_whose_rounds_disappoint_expects_less_of_every_task() -> None:
    task, others = progress("a", 1.0), [progress(f"{n}", 1.0, 1.0) for n in range(9)]
    assert gain(task, *others) < 0.3 * gain(task)


def test_a_campaign_whose_rounds_surprise_expects_more_of_every_task() -> None:
    task, others = progress("a", 1.0), [progress(f"{n}", 1.0, 0.5) for n in range(9)]
    assert gain(task, *others) > 2 * gain(task)


def test_rounds_of_another_stage_say_nothing() -> None:
    task, late = progress("a", 1.0), progress("late", *[1.0] * 20)
    early = replace(
        late, best_by_round_s=late.best_by_round_s[9:], trials_by_round=late.trials_by_round[9:]
    )
    assert gain(task, early) == gain(task)


def test_a_tasks_own_tendency_counts() -> None:
    improves, stalls = progress("a", 3.0, 2.0, 1.0), progress("b", 1.0, 1.0, 1.0)
    outlook = Outlook([improves, stalls])
    assert outlook.gain_s(improves) > 2 * outlook.gain_s(stalls)


def test_the_gain_is_the_networks() -> None:
    assert gain(progress("a", 2.0, weight=3)) == pytest.approx(6 * gain(progress("a", 1.0)))


def test_nothing_is_expected_to_exceed_the_machines_peak() -> None:
    far, near = progress("far", 0.04, 0.02), progress("near", 0.02, 0.0101)
    outlook = Outlook([far, near], reachable=1e11)
    unbounded = Outlook([far, near])
    assert outlook.gain_s(far) == unbounded.gain_s(far)
    assert outlook.gain_s(near) == pytest.approx(0.0001, rel=0.02)
    assert unbounded.gain_s(near) > 0.001


def test_a_peak_that_was_exceeded_was_measured_too_low() -> None:
    beyond, slow = progress("beyond", 0.005, 0.005), progress("slow", 0.0101, 0.0101)
    outlook = Outlook([beyond, slow], reachable=1e11)
    assert outlook.gain_s(slow) == Outlook([beyond, slow]).gain_s(slow)
    assert 0 < outlook.gain_s(beyond) < 0.02 * Outlook([beyond, slow]).gain_s(beyond)


def test_a_task_without_operations_has_no_peak() -> None:
    moves = progress("reshape", 1.0, flops=0.0)
    assert Outlook([moves], reachable=1e11).gain_s(moves) == Outlook([moves]).gain_s(moves)


def test_a_task_without_a_latency_is_worth_everything_until_it_is_hopeless() -> None:
    assert gain(progress("a")) == math.inf
    assert gain(progress("a", rounds=2)) == math.inf
    assert gain(progress("a", rounds=3)) == 0.0


def test_trials_that_take_longer_must_gain_more_within_limits() -> None:
    usual = [progress(f"{n}", 1.0, trial_s=1.0) for n in range(3)]
    slow = progress("slow", 1.0, trial_s=1.5)
    stuck = progress("stuck", 1.0, trial_s=60.0)
    outlook = Outlook([*usual, slow, stuck])
    gained = outlook.gain_per_cost(usual[0])
    assert gained / outlook.gain_per_cost(slow) == pytest.approx(1.5)
    assert gained / outlook.gain_per_cost(stuck) == pytest.approx(2.0)


def test_a_round_is_worth_it_where_the_network_gains_the_share_asked_for() -> None:
    small, large = progress("small", 0.01), progress("large", 0.99)
    outlook = Outlook([small, large])
    assert outlook.is_worth_a_round(large, 0.1)
    assert not outlook.is_worth_a_round(small, 0.1)
    assert outlook.is_worth_a_round(small, 0.001)
    assert not outlook.is_worth_a_round(progress("done", 1.0, exhausted=True), 0.0)


def test_the_peak_is_that_of_the_cores_a_target_uses() -> None:
    profile = replace(
        PROFILE, measured=MeasuredProfile(gflops_single_core=50.0, gflops_all_cores=90.0)
    )
    assert reachable_rate([profile], TARGET) == 90e9
    assert reachable_rate([profile], ONE_CORE) == 50e9
    assert reachable_rate([PROFILE, UNMEASURED], TARGET) == 100e9
    assert reachable_rate([UNMEASURED], TARGET) == 0.0
