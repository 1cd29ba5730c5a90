"""Token buckets: how much each peer has asked for lately."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

MOST_BUCKETS = 20_000
"""Peers times kinds of calls that are remembered, some 200 bytes each: names can be made up."""


@dataclass(frozen=True)
class Rate:
    """How much is allowed."""

    a_second: float
    burst: float
    """At once, after a time of rest."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class Rates:
    """A bucket for each key. To be used in one thread."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, most_buckets: int = MOST_BUCKETS
    ) -> None:
        self._clock = clock
        self._most_buckets = most_buckets
        # The one used last comes last; the first is forgotten first, and begins full again.
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()

    def take(self, key: Hashable, rate: Rate, cost: float = 1.0) -> float:
        """Take tokens if they are there.

        Returns:
            0, or the seconds after which there are enough, none having been taken.
        """
        bucket = self._filled(key, rate)
        # What costs more than a bucket holds needs a full one, else it would never pass.
        lacking = min(cost, rate.burst) - bucket.tokens
        if lacking > 0:
            return lacking / rate.a_second
        bucket.tokens -= cost
        return 0.0

    def owe(self, key: Hashable, rate: Rate, cost: float) -> float:
        """Take tokens, there or not.

        Returns:
            The seconds to wait until none are owed.
        """
        bucket = self._filled(key, rate)
        bucket.tokens -= cost
        return max(0.0, -bucket.tokens / rate.a_second)

    def _filled(self, key: Hashable, rate: Rate) -> _Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(key, _Bucket(rate.burst, now))
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._most_buckets:
            self._buckets.popitem(last=False)
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.a_second)
        bucket.at = now
        return bucket
