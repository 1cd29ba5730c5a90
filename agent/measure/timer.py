"""Timing a program that is ready to run."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.profile.sysfs import read_caches
from tunefleet.leases import MeasurePolicy

SLOW_RUN_S = 1.0
"""A program that takes longer than this is timed run by run: its samples are hardly noisy, and
averaging several would exceed the time limit."""

_CALLED_FROM_PYTHON_S = 0.001
"""Runs at least this long are called one by one, where the evaluator would add a run of its own to
each sample; the call costs a microsecond."""
_FLUSHED_CACHES = 2
"""So many times the last cache's size is written to empty it."""
_FALLBACK_FLUSH_BYTES = 64 * 2**20


class Timer:
    """Takes samples of a program's run time, in seconds per run.

    With an adaptive policy it takes as many as it is asked for; else all ``repeat`` at once, by the
    rules of TVM's evaluator (a sample is the mean of at least ``number`` runs and takes at least
    ``min_repeat_ms``), and fewer where runs are slow.
    """

    def __init__(self, loaded: Any, inputs: Sequence[Sequence[Any]], policy: MeasurePolicy) -> None:
        """Run the program once or twice, to warm everything up, and discard that.

        Args:
            loaded: module with a function ``main``, in machine code.
            inputs: sets of its arguments, which are used in turn.
            policy: how it is timed.
        """
        self._loaded = loaded
        self._main = loaded.get_function("main")
        self._inputs = inputs[0]
        self._in_turn = itertools.cycle(inputs)
        self._several = len(inputs) > 1
        self._policy = policy
        self._deadline = time.monotonic() + policy.run_timeout_s
        # Starts the thread pool and touches all pages.
        self._one_s = self._time(1)
        self._evaluator: Any = None
        self.warm_up_s = self._one_s
        """Wall seconds of the runs that were discarded."""
        if policy.adaptive and not policy.flush_cache and self._one_s * 1000 < policy.min_repeat_ms:
            # The first run was colder than those to come.
            second_s = self._time(1)
            self.warm_up_s += second_s
            self._one_s = min(self._one_s, second_s)

    def take(self, count: int) -> list[float]:
        """Take samples; with a policy that is not adaptive, ``repeat`` of them or fewer."""
        if self._one_s > SLOW_RUN_S:
            return self._take_slow(count)
        if self._policy.flush_cache:
            return self._take_cold(count)
        return self._take_warm(count) if self._policy.adaptive else self._take_fixed(count)

    def _take_slow(self, count: int) -> list[float]:
        samples = [self._time(1)]
        while len(samples) < count and time.monotonic() + 1.5 * self._one_s < self._deadline:
            samples.append(self._time(1))
        return samples

    def _take_fixed(self, count: int) -> list[float]:
        policy = self._policy
        # Beside the samples the evaluator makes one more run; half the time is a margin for noise.
        affordable = int(policy.run_timeout_s / 2 / max(self._one_s, 1e-9) / count)
        number = max(1, min(policy.number, affordable))
        if self._one_s >= _CALLED_FROM_PYTHON_S:
            # The evaluator would warm up once more, and run it for nothing to find this number.
            number = max(number, self._runs_for_a_sample())
            return [self._time(number) for _ in range(count)]
        return self._evaluate(number=number, repeat=count, min_repeat_ms=policy.min_repeat_ms)

    def _take_warm(self, count: int) -> list[float]:
        number = max(1, self._policy.number, self._runs_for_a_sample())
        if self._several or self._one_s >= _CALLED_FROM_PYTHON_S:
            return [self._time(number) for _ in range(count)]
        if self._evaluator is None:
            self._evaluator = self._make_evaluator(number=number, repeat=1)
        return [float(self._evaluator(*self._inputs).results[0]) for _ in range(count)]

    def _runs_for_a_sample(self) -> int:
        return math.ceil(self._policy.min_repeat_ms / 1000 / max(self._one_s, 1e-9))

    def _take_cold(self, count: int) -> list[float]:
        return self._evaluate(number=1, repeat=count, cache_flush_bytes=_flush_bytes())

    def _evaluate(self, **options: int) -> list[float]:
        evaluator = self._make_evaluator(**options)
        return [float(sample) for sample in evaluator(*self._inputs).results]

    def _make_evaluator(self, **options: int) -> Any:
        import tvm  # noqa: PLC0415 (the worker imported it long ago)

        return self._loaded.time_evaluator("main", tvm.cpu(), **options)

    def _time(self, number: int) -> float:
        main, in_turn = self._main, self._in_turn
        began = time.perf_counter()
        for _ in range(number):
            main(*next(in_turn))
        return (time.perf_counter() - began) / number


def _flush_bytes() -> int:
    cpu_root = Path("/sys/devices/system/cpu")
    size = read_caches(cpu_root, min(os.sched_getaffinity(0))).l3_bytes
    return _FLUSHED_CACHES * size if size else _FALLBACK_FLUSH_BYTES
