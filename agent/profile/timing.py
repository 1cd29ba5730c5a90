"""Timing of micro-benchmarks: the best of many short samples, taken while the machine is quiet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter

from tunefleet.machine_lock import MachineLock

SAMPLE_S = 0.004
"""Length of one sample: 1,000 times the cost of calling a kernel, and about a scheduler's slice, so
that some samples fall between two interruptions."""

SAMPLES_PER_PASS = 12

PASSES = 5
"""Passes over all figures. A neighbour's burst of a second spoils one pass, not a figure."""

QUIET_TIMEOUT_S = 2.0
"""Wait for quiet before each figure of each pass; 5 * 8 such waits stay under the job's limit."""

_MIN_CPU_SHARE = 0.9
"""CPU time over wall time of a thread that had a core to itself. With two busy threads on one
core, as another program's load makes it, the all-core figures come out at half."""


@dataclass(frozen=True)
class Figure:
    """One thing to time."""

    run: Callable[[int], None]
    """Does the work as many rounds as it is told."""
    threads: int
    """Threads that compute all the while."""
    value: Callable[[float], float]
    """Turns seconds a round into the figure."""


@dataclass(frozen=True)
class _Sample:
    seconds: float
    cpu_seconds: float
    """CPU time of all threads of this process."""

    def has_cores(self, threads: int) -> bool:
        return self.cpu_seconds >= _MIN_CPU_SHARE * threads * self.seconds


@dataclass(frozen=True)
class Timed:
    """The figures, and whether they are worth keeping."""

    values: Mapping[str, float | None]
    undisturbed: bool
    """Nothing else of TuneFleet computed at any time, and in the sample that counts each thread had
    a core to itself."""


def time_figures(
    figures: Mapping[str, Figure],
    lock: MachineLock,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> Timed:
    """Time each figure in several passes and keep its fastest sample.

    Args:
        figures: what to time, by name.
        lock: the machine's lock; every timed section is a quiet one.
        clock: seconds, monotonic.
        cpu_clock: CPU seconds of this process.

    Returns:
        The figures by name; one that is not finite and positive is ``None``.
    """

    def sample(name: str, rounds: int) -> _Sample:
        start, cpu_start = clock(), cpu_clock()
        figures[name].run(rounds)
        return _Sample(clock() - start, cpu_clock() - cpu_start)

    quiet = True
    rounds: dict[str, int] = {}
    best: dict[str, _Sample] = {}
    for _ in range(PASSES):
        for name in figures:
            with lock.quiet(QUIET_TIMEOUT_S) as held:
                quiet = quiet and held
                if name not in rounds:
                    rounds[name] = _calibrate(partial(sample, name))
                samples = [sample(name, rounds[name]) for _ in range(SAMPLES_PER_PASS)]
            best[name] = min([*samples, best.get(name, samples[0])], key=attrgetter("seconds"))
    return Timed(
        {name: _checked(figures[name].value, best[name].seconds / rounds[name]) for name in best},
        quiet and all(best[name].has_cores(figures[name].threads) for name in best),
    )


def _calibrate(sample: Callable[[int], _Sample]) -> int:
    """Find how many rounds make a sample; the first calls warm caches and threads up as well."""
    rounds = 1
    # The best of three: one call that is interrupted must not pass for a long one.
    while (seconds := min(sample(rounds).seconds for _ in range(3))) < SAMPLE_S / 4:
        rounds *= 4
    return max(1, round(rounds * SAMPLE_S / seconds))


def _checked(value: Callable[[float], float], seconds: float) -> float | None:
    if not (math.isfinite(seconds) and seconds > 0):
        return None
    figure = value(seconds)
    return figure if math.isfinite(figure) and figure > 0 else None
