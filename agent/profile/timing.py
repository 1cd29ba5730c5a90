"""Timing of micro-benchmarks: the best of many short samples, taken while the machine is quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tunefleet.machine_lock import MachineLock

SAMPLE_S = 0.004
"""Length of one sample: 1,000 times the cost of calling a kernel, and about a scheduler's slice, so
that some samples fall between two interruptions."""

SAMPLES_PER_PASS = 12

PASSES = 5
"""Passes over all figures. A neighbour's burst of a second spoils one pass, not a figure."""

QUIET_TIMEOUT_S = 2.0
"""Wait for quiet before each figure of each pass; 5 * 8 such waits stay under the job's limit."""


@dataclass(frozen=True)
class Figure:
    """One thing to time."""

    run: Callable[[int], None]
    """Does the work as many rounds as it is told."""
    value: Callable[[float], float]
    """Turns seconds a round into the figure."""


@dataclass(frozen=True)
class Timed:
    """The figures, and whether nothing else of ours computed at any time."""

    values: Mapping[str, float | None]
    quiet: bool


def time_figures(
    figures: Mapping[str, Figure],
    lock: MachineLock,
    clock: Callable[[], float] = time.perf_counter,
) -> Timed:
    """Time each figure in several passes and keep its fastest sample.

    Args:
        figures: what to time, by name.
        lock: the machine's lock; every timed section is a quiet one.
        clock: seconds, monotonic.

    Returns:
        The figures by name; one that is not finite and positive is ``None``.
    """
    quiet = True
    rounds: dict[str, int] = {}
    best_s = dict.fromkeys(figures, math.inf)
    for _ in range(PASSES):
        for name, figure in figures.items():
            with lock.quiet(QUIET_TIMEOUT_S) as held:
                quiet = quiet and held
                if name not in rounds:
                    rounds[name] = _calibrate(figure.run, clock)
                for _ in range(SAMPLES_PER_PASS):
                    seconds = _elapsed(figure.run, rounds[name], clock) / rounds[name]
                    best_s[name] = min(best_s[name], seconds)
    return Timed({name: _checked(figures[name].value, best_s[name]) for name in figures}, quiet)


def _calibrate(run: Callable[[int], None], clock: Callable[[], float]) -> int:
    """Find how many rounds make a sample; the first calls warm caches and threads up as well."""
    rounds = 1
    # The best of three: one call that is interrupted must not pass for a long one.
    while (seconds := min(_elapsed(run, rounds, clock) for _ in range(3))) < SAMPLE_S / 4:
        rounds *= 4
    return max(1, round(rounds * SAMPLE_S / seconds))


def _elapsed(run: Callable[[int], None], rounds: int, clock: Callable[[], float]) -> float:
    start = clock()
    run(rounds)
    return clock() - start


def _checked(value: Callable[[float], float], seconds: float) -> float | None:
    if not (math.isfinite(seconds) and seconds > 0):
        return None
    figure = value(seconds)
    return figure if math.isfinite(figure) and figure > 0 else None
