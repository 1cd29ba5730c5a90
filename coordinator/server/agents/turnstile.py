"""Lets so many devices ask for work at a time, and tells the others when to come back.

Choosing work takes milliseconds. A thousand devices that ask at once would wait for one another
until their calls time out and are made again, which is more of the same; those who are told a time
cost next to nothing, and meanwhile reports and heartbeats are answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordinator.server.limits import (
    ASKING_AT_A_TIME,
    LONGEST_WAIT_FOR_A_TURN_S,
    SHORTEST_WAIT_FOR_A_TURN_S,
)

_NEWEST_SHARE = 0.1
"""What one call counts in the running mean of what calls take."""


class Turnstile:
    """Counts who is asking. To be used in one thread."""

    def __init__(
        self, at_a_time: int = ASKING_AT_A_TIME, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_a_time = at_a_time
        self._clock = clock
        self._asking = 0
        self._each_s = 0.0
        """How much later a call is answered for each that is in front of it, lately, in seconds."""
        self._next_turn = 0.0

    def wait_s(self) -> float:
        """Return 0 for who may pass now, else the seconds after which to come back.

        Each that has to wait is given the turn after the one before.
        """
        if self._asking < self._at_a_time:
            return 0.0
        now = self._clock()
        latest = now + LONGEST_WAIT_FOR_A_TURN_S
        self._next_turn = min(max(self._next_turn, now) + self._each_s, latest)
        return max(self._next_turn - now, SHORTEST_WAIT_FOR_A_TURN_S)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count a call while it is answered."""
        self._asking += 1
        in_front, began = self._asking, self._clock()
        try:
            yield
        finally:
            self._asking -= 1
            took_s = (self._clock() - began) / in_front
            self._each_s += _NEWEST_SHARE * (took_s - self._each_s)
