"""Retries wait longer and longer, by chance, up to a limit."""

from __future__ import annotations

import random

import pytest

from agent.session.pace import Backoff, Pace


class _Longest(random.Random):
    """Chance that always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def waits() -> list[float]:
    return []


def _pace(waits: list[float], chance: random.Random) -> Pace:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    return Pace(sleep=sleep, chance=chance, first_retry_s=1.0, longest_retry_s=5.0)


async def test_the_longest_wait_doubles_up_to_the_limit(waits: list[float]) -> None:
    backoff = Backoff(_pace(waits, _Longest()))
    for _ in range(5):
        await backoff.wait()
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


async def test_after_a_success_waits_begin_short_again(waits: list[float]) -> None:
    backoff = Backoff(_pace(waits, _Longest()))
    await backoff.wait()
    await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert waits == [1.0, 2.0, 1.0]


async def test_a_wait_is_no_shorter_than_the_other_side_asked_for(waits: list[float]) -> None:
    backoff = Backoff(_pace(waits, _Longest()))
    await backoff.wait(30.0)
    assert waits == [31.0]


async def test_waits_are_spread_over_the_whole_range(waits: list[float]) -> None:
    pace = _pace(waits, random.Random(1))
    for _ in range(200):
        await Backoff(pace).wait()
    assert min(waits) < 0.1
    assert max(waits) > 0.9
    assert max(waits) <= 1.0


def test_a_spread_wait_stays_near_what_was_asked_for() -> None:
    pace = Pace(chance=random.Random(1))
    spread = [pace.spread(10.0) for _ in range(200)]
    assert 8.0 <= min(spread) < 8.5
    assert 11.5 < max(spread) <= 12.0
