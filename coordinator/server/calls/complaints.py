"""Keeps a flood of refused calls from becoming a flood of log lines."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

INTERVAL_S = 60.0
"""How often the log tells of one peer."""

MOST_PEERS = 1000
"""Of which it is remembered that the log told of them."""


class Complaints:
    """Says whether the log should tell of a peer, which is once in a while."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, interval_s: float = INTERVAL_S
    ) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._told: OrderedDict[str, float] = OrderedDict()

    def due(self, peer: str) -> bool:
        """Return whether to tell now, and take it that this is done."""
        now = self._clock()
        if now - self._told.get(peer, -math.inf) < self._interval_s:
            return False
        self._told[peer] = now
        self._told.move_to_end(peer)
        if len(self._told) > MOST_PEERS:
            self._told.popitem(last=False)
        return True
