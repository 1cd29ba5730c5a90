"""How fast schedules are, judged by everything that was measured of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LUCK = 1.15
"""The best of many single measurements owes about as much to luck (the winner's curse). Where some
candidates were measured several times, one that was measured once must be faster by this factor."""


def estimate_s(latencies_s: Sequence[float]) -> float:
    """Return what a candidate takes: the median of its latencies; there is at least one."""
    return statistics.median(latencies_s)


def rank(latencies_s: Sequence[float], *, others_repeated: bool) -> float:
    """Return what candidates of one record set are ordered by, the lowest first.

    Args:
        latencies_s: all that were measured of the candidate, in seconds.
        others_repeated: whether any candidate of the set has several.
    """
    lucky = others_repeated and len(latencies_s) == 1
    return estimate_s(latencies_s) * (LUCK if lucky else 1.0)


class Estimates:
    """Latencies of one record set's candidates, one after the other, and which is the fastest."""

    def __init__(self) -> None:
        self._latencies_s: dict[str, list[float]] = {}
        self._repeated = False
        self._best = ""

    def add(self, candidate: str, latency_s: float) -> None:
        """Take a measurement in."""
        known = self._latencies_s.setdefault(candidate, [])
        known.append(latency_s)
        if len(known) > 1:
            self._repeated = True
            self._best = min(self._latencies_s, key=self._rank)
        elif not self._best or self._rank(candidate) < self._rank(self._best):
            self._best = candidate

    @property
    def best(self) -> str:
        """The candidate that is taken to be the fastest; empty while there is none."""
        return self._best

    @property
    def best_s(self) -> float | None:
        """What it takes, in seconds."""
        return estimate_s(self._latencies_s[self._best]) if self._best else None

    def count(self, candidate: str) -> int:
        """Return how many latencies of a candidate there are."""
        return len(self._latencies_s.get(candidate, ()))

    def by_estimate(self) -> list[tuple[str, float]]:
        """Return all candidates with their estimates in seconds, the lowest first."""
        known = [(name, estimate_s(values)) for name, values in self._latencies_s.items()]
        return sorted(known, key=lambda pair: (pair[1], pair[0]))

    def _rank(self, candidate: str) -> tuple[float, str]:
        latencies_s = self._latencies_s[candidate]
        return rank(latencies_s, others_repeated=self._repeated), candidate
