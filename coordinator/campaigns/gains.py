"""What the next round of a task is worth, judged by what rounds have brought so far.

The objective is the network's latency: the sum over tasks of weight times best latency.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from coordinator.campaigns.round_size import ROUND_TRIALS
from coordinator.state.records import TaskProgress
from tunefleet.devices import DeviceProfile
from tunefleet.targets import target_cores

_PROMISE = 2.0
"""Scale of what is expected before anything is known: 16 trials after the first 16 lower a task's
latency by about 14 %, the next 16 by 6 %, then by 4 %, 3 % and 2 %. Sixteen are worth more the
fewer there were before, whatever the sizes of the rounds."""

_GROUP_ROUNDS = 3
"""Rounds that must agree before a group's own experience outweighs that expectation."""

_TASK_ROUNDS = 2
"""The same for a task's own experience against its group's: its own speaks sooner, but one round
without luck must not end it."""

_SAME_STAGE = 2.0
"""Rounds tell of each other where neither began with more than this many times the other's
trials: what a first round brought says little of what a tenth will bring."""

_LEAST_SHARE = 0.01
"""Share of the expectation that a task keeps at the machine's peak: the peak is measured too."""

_COST_RANGE = 2.0
"""A task's trials count as at most this many times as dear as the median task's, and as cheap at
the least: a single round also pays for workers that start and for whoever else used the machine."""

HOPELESS_ROUNDS = 3
"""Rounds without a single latency after which a task is left alone."""


def reachable_rate(profiles: Sequence[DeviceProfile], target: str) -> float:
    """Return the operations per second that no schedule exceeds on devices of one hardware.

    Args:
        profiles: of the devices; they measured their peak each, and the highest counts.
        target: canonical target, which says how many cores a program uses.

    Returns:
        Floating-point operations per second; 0 where no device could measure it.
    """
    return max((_peak_gflops(p, target) for p in profiles), default=0.0) * 1e9


def _peak_gflops(profile: DeviceProfile, target: str) -> float:
    if profile.measured is None:
        return 0.0
    single, every = profile.measured.gflops_single_core, profile.measured.gflops_all_cores
    cores = target_cores(target) or profile.logical_cores
    if single is None or (every is not None and cores >= profile.logical_cores):
        return every or 0.0
    return single * cores


@dataclass(frozen=True)
class _Round:
    """What one round of a task brought."""

    begun: int
    """Trials of the task when it began."""
    trials: int
    log_gain: float
    """Logarithm of latency before over latency after; 0 where nothing better was found."""


@dataclass(frozen=True)
class _Experience:
    """What rounds brought and had promised, summed up so that any stage of them is read at once."""

    begun: list[int]
    """Trials of its task when each began, ascending."""
    gained: list[float]
    promised: list[float]
    """Sums over the rounds before each and over all, one more than there are rounds."""

    @classmethod
    def of(cls, rounds: Sequence[_Round]) -> _Experience:
        ordered = sorted(rounds, key=lambda r: r.begun)
        return cls(
            [r.begun for r in ordered],
            list(accumulate((r.log_gain for r in ordered), initial=0.0)),
            list(accumulate((_promise(r.begun, r.trials) for r in ordered), initial=0.0)),
        )

    def near(self, made: int) -> tuple[float, float]:
        """Return what rounds of the same stage as after so many trials brought and had promised."""
        first = bisect_left(self.begun, made / _SAME_STAGE)
        end = bisect_right(self.begun, made * _SAME_STAGE)
        return self.gained[end] - self.gained[first], self.promised[end] - self.promised[first]


@dataclass(frozen=True)
class Outlook:
    """The tasks of one group and what may still be expected of each.

    How much ``m`` trials bring after ``n`` is expected to be ``f * 2 * (1 / sqrt(n) - 1 / sqrt(n +
    m))``, in logarithms of latency: a search finds most at its beginning. Everything that the
    campaign itself has seen goes into the factor ``f``. It is the ratio of what rounds of a similar
    stage brought to what they had promised, over the whole group together with three imaginary
    rounds that kept their promise, and then over the task's own rounds together with two that did
    as the group does. (A mean shrunken towards a prior, twice: James and Stein.) So a first
    estimate needs no data, a campaign whose rounds disappoint expects less of every task, and a
    task that still improves is believed more than one that stalls. No task is expected to exceed
    what the machine can reach.
    """

    tasks: Sequence[TaskProgress]
    reachable: float = 0.0
    """Operations per second that the machine can reach; 0 where it is not known."""

    def gain_s(self, progress: TaskProgress, trials: int = ROUND_TRIALS) -> float:
        """Return by how many seconds a round is expected to lower the network's latency.

        Infinite where the task has no latency yet, and 0 where it failed too often to get one.
        """
        best = progress.best_s
        if best is None:
            return math.inf if progress.rounds < HOPELESS_ROUNDS else 0.0
        made = max(1, progress.trials)
        one_round = _promise(made, ROUND_TRIALS)
        factor = _shrunken(1.0, _GROUP_ROUNDS * one_round, self._experience.near(made))
        own = _Experience.of(_rounds_of(progress)).near(made)
        factor = _shrunken(factor, _TASK_ROUNDS * one_round, own)
        expected = factor * _promise(made, trials)
        room = self._room(progress, best)
        share = 1.0 - math.exp(-min(expected, max(room, _LEAST_SHARE * expected)))
        return progress.task.weight * best * share

    def gain_per_cost(self, progress: TaskProgress) -> float:
        """Return the gain of a full round for each second of it, up to a factor all tasks share."""
        return self.gain_s(progress) / self._cost(progress)

    def is_worth_a_round(self, progress: TaskProgress, min_gain: float) -> bool:
        """Whether a full round of a task is expected to gain enough.

        Args:
            progress: the task.
            min_gain: share of the network's latency; 0 for whatever it gains.
        """
        if progress.task.exhausted:
            return False
        if min_gain <= 0:
            return True
        gain_s = self.gain_s(progress)
        return gain_s > 0 and gain_s >= min_gain * self._network_s

    @cached_property
    def _network_s(self) -> float:
        return sum(t.task.weight * t.best_s for t in self.tasks if t.best_s is not None)

    @cached_property
    def _experience(self) -> _Experience:
        return _Experience.of([r for t in self.tasks for r in _rounds_of(t)])

    @cached_property
    def _peak(self) -> float:
        # A rate that was reached can be reached, whatever the device measured of itself.
        return max([self.reachable, *(t.task.flops / t.best_s for t in self.tasks if t.best_s)])

    def _room(self, progress: TaskProgress, best: float) -> float:
        """Return the logarithm of latency over the least possible one."""
        if self.reachable <= 0 or progress.task.flops <= 0:
            return math.inf
        return math.log(best * self._peak / progress.task.flops)

    @cached_property
    def _usual_cost(self) -> float:
        known = [t.trial_s for t in self.tasks if t.trial_s is not None]
        return statistics.median(known) if known else 1.0

    def _cost(self, progress: TaskProgress) -> float:
        usual = self._usual_cost
        own = usual if progress.trial_s is None else progress.trial_s
        return min(max(own, usual / _COST_RANGE), usual * _COST_RANGE)


def _promise(made: int, trials: int) -> float:
    return _PROMISE * (1 / math.sqrt(made) - 1 / math.sqrt(made + trials))


def _rounds_of(progress: TaskProgress) -> list[_Round]:
    """Return a task's rounds from the second on: the first has nothing to improve upon."""
    ends = list(zip(progress.trials_by_round, progress.best_by_round_s, strict=True))
    return [
        # A best latency that was measured again may have risen meanwhile.
        _Round(begun, after - begun, max(0.0, math.log(before_s / after_s)))
        for (begun, before_s), (after, after_s) in pairwise(ends)
        if after > begun > 0
    ]


def _shrunken(prior: float, weight: float, seen: tuple[float, float]) -> float:
    """Return gain over promise of some rounds and of imaginary ones that gain ``prior`` times."""
    gained, promised = seen
    return (prior * weight + gained) / (weight + promised)
