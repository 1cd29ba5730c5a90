"""When to stop sampling a candidate, and which of its samples the machine's state has spoilt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agent.measure.canary import CANARY_LIMIT
from tunefleet.intervals import median_interval, relative_half_width
from tunefleet.leases import MeasurePolicy

WAITED_LIMIT = 0.03
"""Share of a sample that its threads may wait for a core. On a quiet machine it is below 0.01; one
time slice given to another process makes 0.5 of a sample of 5 ms."""

_HOPELESS_RATIO = 3.0
"""Two samples this many times above the best latency settle that a candidate is slower."""
_HOPELESS_SAMPLES = 2
_LEAST_FOR_INTERVAL = 5
"""Fewer samples fix no interval at 90 %."""
_CLEAR_ENOUGH = 0.25
"""An interval of this share of the wanted width that still contains the best latency ends the
race: what drifts between two candidates' measurements is larger."""
_STRETCH = 3
"""Samples between two readings of the canary, after the first ``repeat`` ones."""
_REST_S = 0.02
"""Rest before the second attempt; each further one takes three times as long."""


@dataclass(frozen=True)
class Instruments:
    """What a measurement reads; passed in, so that the rules can be tried without a machine."""

    take: Callable[[int], list[float]]
    """Takes so many samples, in seconds per run."""
    canary: Callable[[], float] | None = None
    """Reads the reference kernel's time in seconds; ``None`` where it cannot be compiled."""
    waited: Callable[[], float] = lambda: 0.0
    """Seconds that all threads of this process have waited for a core so far."""
    clock: Callable[[], float] = time.monotonic
    rest: Callable[[float], None] = time.sleep


@dataclass
class Sampled:
    """The samples of one candidate, and how they were come by."""

    samples_s: list[float] = field(default_factory=list)
    canary_s: list[float] = field(default_factory=list)
    """All readings, in order."""
    attempts: int = 1
    spoilt: bool = False
    """Whether the samples are such as the machine's state has spoilt, for want of others."""
    kernel_s: float = 0.0
    """Wall seconds spent taking samples, spoilt ones included."""
    waited_share: float = 0.0
    """Time that threads waited for a core, as a share of the wall time of the samples returned."""


def is_enough(
    policy: MeasurePolicy, samples: Sequence[float], best_s: float | None, elapsed_s: float
) -> bool:
    """Tell whether further samples would change nothing that matters.

    Args:
        policy: an adaptive one.
        samples: seconds per run.
        best_s: the best latency known of the workload here, if any.
        elapsed_s: time spent on this candidate's samples so far.

    Returns:
        ``True`` if all samples are above the best latency by ``slow_ratio`` (which happens with
        probability 2 ** -n where the median is not), if the median's interval is narrow and does
        not contain the best latency, or if samples or time are used up.
    """
    count = len(samples)
    ratio = min(samples) / best_s if best_s is not None and samples else 0.0
    if count >= _HOPELESS_SAMPLES and ratio > _HOPELESS_RATIO:
        return True
    if count < policy.repeat:
        return False
    if count >= policy.max_repeat or elapsed_s * 1000 >= policy.budget_ms:
        return True
    if ratio > policy.slow_ratio:
        return True
    if count < _LEAST_FOR_INTERVAL:
        return False
    width = relative_half_width(samples)
    low, high = median_interval(samples)
    contested = best_s is not None and low <= best_s <= high
    return width <= policy.precision * (_CLEAR_ENOUGH if contested else 1.0)


class Sampling:
    """Samples one candidate, in stretches with a reading of the canary before and after each."""

    def __init__(
        self,
        policy: MeasurePolicy,
        tools: Instruments,
        best_s: float | None,
        usual_s: float | None,
    ) -> None:
        """Prepare.

        Args:
            policy: how many samples, and how often spoilt ones are taken again.
            tools: what to read.
            best_s: the best latency known of the workload here, if any.
            usual_s: the canary's usual reading, if known; else the lowest one met on the way.
        """
        self._policy = policy
        self._tools = tools
        self._best_s = best_s
        self._usual_s = usual_s
        self._canary_s: list[float] = []
        self._waited_s = 0.0
        self._wall_s = 0.0

    def run(self) -> Sampled:
        """Take samples until they are enough, or until too many were spoilt."""
        began = self._tools.clock()
        deadline = began + self._policy.run_timeout_s / 2
        good: list[float] = []
        spoilt: list[float] = []
        attempts = 1
        steady_before = self._is_steady()
        while True:
            stretch = self._stretch(good, self._tools.clock() - began)
            steady_after = self._is_steady()
            kept = [s for s, waited in stretch if waited <= WAITED_LIMIT]
            clean = steady_before and steady_after and bool(kept)
            if clean:
                good += kept
                if self._enough(good, self._tools.clock() - began):
                    break
            else:
                spoilt += [sample for sample, _ in stretch]
            late = self._tools.clock() > deadline
            if late or (not clean and attempts >= self._policy.max_attempts):
                break
            if not clean:
                self._tools.rest(_REST_S * 3.0 ** (attempts - 1))
                attempts += 1
                steady_after = self._is_steady()
            steady_before = steady_after
        enough = len(good) >= min(self._policy.repeat, _HOPELESS_SAMPLES) or not spoilt
        return Sampled(
            samples_s=good if enough else good + spoilt,
            canary_s=self._canary_s,
            attempts=attempts,
            spoilt=not enough,
            kernel_s=self._wall_s,
            waited_share=self._waited_s / self._wall_s if self._wall_s > 0 else 0.0,
        )

    def _enough(self, good: list[float], elapsed_s: float) -> bool:
        if self._policy.adaptive:
            return is_enough(self._policy, good, self._best_s, elapsed_s)
        return True

    def _stretch(self, good: list[float], elapsed_s: float) -> list[tuple[float, float]]:
        """Take some samples; returns each with the share of its time that threads waited."""
        if not self._policy.adaptive:
            return self._watched(self._policy.repeat)
        wanted = self._policy.repeat if len(good) < self._policy.repeat else _STRETCH
        stretch: list[tuple[float, float]] = []
        while len(stretch) < min(wanted, self._policy.max_repeat - len(good)):
            stretch += self._watched(1)
            so_far = good + [sample for sample, _ in stretch]
            if is_enough(self._policy, so_far, self._best_s, elapsed_s):
                break
        return stretch

    def _watched(self, count: int) -> list[tuple[float, float]]:
        waited, began = self._tools.waited(), self._tools.clock()
        samples = self._tools.take(count)
        wall_s = self._tools.clock() - began
        waited = self._tools.waited() - waited
        self._waited_s += waited
        self._wall_s += wall_s
        return [(sample, waited / wall_s if wall_s > 0 else 0.0) for sample in samples]

    def _is_steady(self) -> bool:
        if self._tools.canary is None:
            return True
        reading = self._tools.canary()
        self._canary_s.append(reading)
        # Faster than usual is the new usual.
        usual = min([*self._canary_s, *([self._usual_s] if self._usual_s else [])])
        return reading <= CANARY_LIMIT * usual
