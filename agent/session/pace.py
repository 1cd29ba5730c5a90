"""How long the agent waits: time and chance in one place, so that tests pass in their own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Pace:
    """Waiting, chance and the limits between which the agent waits."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: random.Random = field(default_factory=random.Random)
    first_retry_s: float = 0.25
    longest_retry_s: float = 15.0
    """A thousand agents that lost their coordinator then ask it about 130 times a second."""
    report_s: float = 2.0
    """Between two reports of trials, but for the last of a round, where the coordinator has no
    wish: a thousand agents that report each trial by itself cost it three times as much."""
    longest_report_s: float = 30.0
    """Whatever it wishes: more would be lost with the disk of a board."""

    def spread(self, seconds: float, share: float = 0.2) -> float:
        """Vary a wait by up to a share of it, so that agents do not ask in step."""
        return seconds * self.chance.uniform(1 - share, 1 + share)


class Backoff:
    """Waits with full jitter, twice as long at most after each failure.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._failures = 0

    def reset(self) -> None:
        """Begin again with short waits, after a success."""
        self._failures = 0

    async def wait(self, at_least_s: float = 0.0) -> None:
        """Wait before the next attempt.

        Args:
            at_least_s: what the other side asked for; chance adds to it.
        """
        ceiling = self._pace.first_retry_s * 2 ** min(self._failures, 16)
        self._failures += 1
        await self._pace.sleep(
            at_least_s + self._pace.chance.uniform(0, min(ceiling, self._pace.longest_retry_s))
        )
