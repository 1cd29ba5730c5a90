"""Which programs are chosen for measuring."""

from __future__ import annotations

import numpy as np

from agent.search.choose import choose


def program(stores: float, schedule: float = 0.0) -> np.ndarray:
    rows = np.zeros((2, 172), np.float32)
    rows[:, 0] = schedule, stores
    return rows


def test_fewer_programs_than_trials_are_all_chosen() -> None:
    picks = choose([program(1), program(2)], None, None, trials=5, exploration=0.1)
    assert sorted(p.index for p in picks) == [0, 1]


def test_no_programs_give_no_picks() -> None:
    assert choose([], None, None, trials=5, exploration=0.1) == []


def test_without_a_model_the_picks_lie_far_apart() -> None:
    features = [program(v) for v in (0.0, 0.1, 0.2, 9.0, 9.1, 100.0)]
    picks = choose(features, None, None, trials=3, exploration=0.0)
    assert [p.index for p in picks] == [0, 5, 3]


def test_the_most_uncertain_program_is_explored() -> None:
    features = [program(v) for v in range(6)]
    score = np.asarray([6, 5, 4, 3, 2, 1], np.float32)
    spread = np.asarray([0, 0, 0, 0, 3, 0], np.float32)
    picks = choose(features, score, spread, trials=2, exploration=0.5)
    assert [(p.index, p.explored) for p in picks] == [(0, False), (4, True)]


def test_a_sure_model_explores_what_is_different() -> None:
    features = [program(v) for v in (0, 1, 2, 1000, 3, 4)]
    score = np.asarray([6, 5, 4, 3, 2, 1], np.float32)
    picks = choose(features, score, np.zeros(6, np.float32), trials=2, exploration=0.5)
    assert [(p.index, p.explored) for p in picks] == [(0, False), (3, True)]


def test_programs_with_equal_features_wait_for_different_ones() -> None:
    features = [program(1), program(1), program(2)]
    score = np.asarray([3, 3, 1], np.float32)
    picks = choose(features, score, np.zeros(3, np.float32), trials=2, exploration=0.0)
    assert [p.index for p in picks] == [0, 2]


def test_programs_whose_schedules_differ_are_told_apart() -> None:
    features = [program(1, 1), program(1, 1), program(1, 2)]
    score = np.asarray([3, 3, 1], np.float32)
    picks = choose(features, score, np.zeros(3, np.float32), trials=2, exploration=0.0)
    assert [p.index for p in picks] == [0, 2]


def test_a_schedules_numbers_do_not_mix_with_those_of_the_stores() -> None:
    features = [program(1, 2), program(1, 2), program(2, 1)]
    picks = choose(features, None, None, trials=2, exploration=0.0)
    assert [p.index for p in picks] == [0, 2]


def test_a_program_without_stores_can_be_chosen() -> None:
    features = [program(1), np.zeros((1, 172), np.float32), program(9)]
    picks = choose(features, None, None, trials=3, exploration=0.0)
    assert sorted(p.index for p in picks) == [0, 1, 2]
