"""Lets so many devices ask for work at a time, and tells the others when to come back.

Choosing work takes milliseconds. A thousand devices that ask at once would wait for one another
until their calls time out and are made again, which is more of the same; those who are told a time
cost next to nothing, and meanwhile reports and heartbeats are answered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordinator.server.limits import (
    ASKING_AT_A_TIME,
    LONGEST_WAIT_FOR_A_TURN_S,
    SHORTEST_WAIT_FOR_A_TURN_S,
)

_NEWEST_SHARE = 0.05
"""What one call counts in the running mean of what calls take. They are answered by the group."""

_AT_FIRST_S = 0.02
"""What a call is taken for before any was measured."""

_SLACK = 1.1
"""Between two turns, so that those who wait are overtaken by what else there is to do."""

_EARLY = 0.75
"""Share of its wait after which a device may pass: each comes back a little early or late."""

_MOST_TURNS = 20_000
"""That are remembered: names can be made up."""


class Turnstile:
    """Counts who is asking. To be used in one thread."""

    def __init__(
        self, at_a_time: int = ASKING_AT_A_TIME, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._at_a_time = at_a_time
        self._clock = clock
        self._asking = 0
        self._each_s = _AT_FIRST_S
        """Time between two answers, lately, while as many wait for one as may, in seconds."""
        self._last_answer = 0.0
        self._last_turn = 0.0
        self._turns: OrderedDict[str, float] = OrderedDict()
        """When who was told to come back may pass."""

    def wait_s(self, device_id: str) -> float:
        """Return 0 for who may pass now, else the seconds after which to come back.

        Each that has to wait is given the turn after the one before, and keeps it.
        """
        now = self._clock()
        mine = self._turns.get(device_id)
        if mine is None:
            if self._asking < self._at_a_time and self._last_turn <= now:
                return 0.0
            turn = max(self._last_turn, now) + _SLACK * self._each_s
            self._last_turn = min(turn, now + LONGEST_WAIT_FOR_A_TURN_S)
            wait_s = max(self._last_turn - now, SHORTEST_WAIT_FOR_A_TURN_S)
            self._turns[device_id] = now + _EARLY * wait_s
            if len(self._turns) > _MOST_TURNS:
                self._turns.popitem(last=False)
            return wait_s
        if mine <= now:
            del self._turns[device_id]
            return 0.0
        return max((mine - now) / _EARLY, SHORTEST_WAIT_FOR_A_TURN_S)

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count a call while it is answered."""
        self._asking += 1
        began, full = self._clock(), self._asking >= self._at_a_time
        try:
            yield
        finally:
            self._asking -= 1
            now = self._clock()
            if full:
                # With fewer the next answer would only show when somebody asked.
                took_s = now - max(began, self._last_answer)
                self._each_s += _NEWEST_SHARE * (took_s - self._each_s)
            self._last_answer = now
