from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from coordinator.server.agents.turnstile import Turnstile
from coordinator.server.limits import LONGEST_WAIT_FOR_A_TURN_S, SHORTEST_WAIT_FOR_A_TURN_S

EACH_S = 2.0


class Crowd:
    """A turnstile for two at a time, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.turnstile = Turnstile(2, lambda: self.now)

    def learn(self) -> None:
        """Have calls take a while, one after the other, as many waiting as may."""
        with self.turnstile.passing():
            for _ in range(200):
                with self.turnstile.passing():
                    self.now += EACH_S

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill it with others."""
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(self.turnstile.passing())
            yield


@pytest.fixture
def crowd() -> Crowd:
    crowd = Crowd()
    crowd.learn()
    return crowd


def test_who_comes_while_there_is_room_passes(crowd: Crowd) -> None:
    assert crowd.turnstile.wait_s("one") == 0.0
    with crowd.turnstile.passing():
        assert crowd.turnstile.wait_s("two") == 0.0
        with crowd.turnstile.passing():
            assert crowd.turnstile.wait_s("three") > 0.0
    assert crowd.turnstile.wait_s("four") > 0.0, "the third is to come first"


def test_each_is_given_the_turn_after_the_one_before(crowd: Crowd) -> None:
    with crowd.full():
        waits = [crowd.turnstile.wait_s(f"device-{n}") for n in range(10)]
    assert waits == sorted(waits)
    gaps = [later - sooner for sooner, later in pairwise(waits)]
    assert all(EACH_S <= gap <= 1.5 * EACH_S for gap in gaps)


def test_who_comes_back_in_time_passes_whoever_else_is_there(crowd: Crowd) -> None:
    with crowd.full():
        crowd.turnstile.wait_s("before")
        wait_s = crowd.turnstile.wait_s("one")
        crowd.now += 0.8 * wait_s  # agents come a little early or late
        assert crowd.turnstile.wait_s("stranger") > 0.0
        assert crowd.turnstile.wait_s("one") == 0.0


def test_who_comes_back_too_early_keeps_the_turn(crowd: Crowd) -> None:
    with crowd.full():
        waits = [crowd.turnstile.wait_s(f"device-{n}") for n in range(5)]
        crowd.now += 1.0
        again = crowd.turnstile.wait_s("device-4")
        assert again == pytest.approx(waits[4] - 1.0 / 0.75)
        assert crowd.turnstile.wait_s("device-5") > again


def test_what_calls_take_while_few_ask_says_nothing(crowd: Crowd) -> None:
    for _ in range(200):
        with crowd.turnstile.passing():
            crowd.now += 60.0
    with crowd.full():
        waits = [crowd.turnstile.wait_s(f"device-{n}") for n in range(3)]
    assert waits[2] - waits[1] <= 1.5 * EACH_S


def test_nobody_waits_for_nothing_or_for_ever() -> None:
    crowd = Crowd()
    with crowd.full():
        assert crowd.turnstile.wait_s("first") == SHORTEST_WAIT_FOR_A_TURN_S
    crowd.learn()
    with crowd.full():
        waits = [crowd.turnstile.wait_s(f"device-{n}") for n in range(1000)]
    assert max(waits) == LONGEST_WAIT_FOR_A_TURN_S


def test_once_all_turns_are_over_anybody_passes(crowd: Crowd) -> None:
    with crowd.full():
        for n in range(10):
            crowd.turnstile.wait_s(f"device-{n}")
    crowd.now += 100.0
    assert crowd.turnstile.wait_s("stranger") == 0.0


def test_made_up_names_take_no_memory(crowd: Crowd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.server.agents.turnstile._MOST_TURNS", 10)
    with crowd.full():
        for n in range(100):
            crowd.turnstile.wait_s(f"device-{n}")
        assert len(crowd.turnstile._turns) == 10
