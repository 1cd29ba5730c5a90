"""Latencies of many candidates, however they were measured, and what they have in common."""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_RESAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One candidate's measurement."""

    verdict: str
    """``ok``, or what is held against it; stock calls everything that ran ``ok``."""
    samples_s: tuple[float, ...]
    """Seconds per run; empty if it did not run."""

    @property
    def latency_s(self) -> float:
        """Median of the samples; infinite without any."""
        return statistics.median(self.samples_s) if self.samples_s else float("inf")


@dataclass(frozen=True)
class Measured:
    """Candidates measured in one go."""

    rows: Mapping[str, Row]
    """By structural hash."""
    wall_s: float
    build_cpu_s: float = 0.0
    """CPU seconds of all builds, where known."""
    kernel_s: float = 0.0
    """Wall seconds of all samples, where known."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Measured:
        """Read what :meth:`to_json` made."""
        rows = {
            name: Row(row["verdict"], tuple(row["samples_s"]))
            for name, row in values["rows"].items()
        }
        return cls(rows, values["wall_s"], values["build_cpu_s"], values["kernel_s"])


def merge(parts: Sequence[Measured]) -> Measured:
    """Put the candidates of several tasks together."""
    return Measured(
        {name: row for part in parts for name, row in part.rows.items()},
        sum(part.wall_s for part in parts),
        sum(part.build_cpu_s for part in parts),
        sum(part.kernel_s for part in parts),
    )


def relative_differences(
    one: Mapping[str, Row], other: Mapping[str, Row], *, both_ok: bool
) -> list[float]:
    """Return how far apart two measurements of each candidate are, as a share of the first.

    Args:
        one: the reference.
        other: the other measurement.
        both_ok: only candidates that neither holds anything against; else all that ran.
    """
    return [
        abs(other[name].latency_s - row.latency_s) / row.latency_s
        for name, row in one.items()
        if row.samples_s
        and other[name].samples_s
        and (not both_ok or row.verdict == other[name].verdict == "ok")
    ]


def pairs_in_order(truth: Mapping[str, float], guess: Mapping[str, float]) -> list[int]:
    """Compare two orders pair by pair: 1 where they agree, -1 where not, 0 where one has a tie.

    Their mean is Kendall's tau.
    """
    return [
        _sign(truth[a], truth[b]) * _sign(guess[a], guess[b])
        for a, b in itertools.combinations(truth, 2)
    ]


def _sign(left: float, right: float) -> int:
    return (left > right) - (left < right)


def interval_of_mean(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and the bounds of its 90 % bootstrap interval."""
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return statistics.fmean(values), means[_RESAMPLES // 20], means[-_RESAMPLES // 20]
