"""Which tasks are alike enough that what is fast for one may be fast for the other.

Transfer-tuning (Gibson and Cano, PACT 2022): schedules of one workload, applied to another of the
same operators, are good ones to start from. Sizes that do not divide are adapted by TVM as a trace
is applied, and what does not fit at all the agent leaves out, so being alike need not be exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from coordinator.state.records import KnownTask, TaskKey

_DIGITS = re.compile(r"[0-9]+(?=_|$)")
"""What tells equal operators of one network apart; not the 2 of ``conv2d``, which a d follows."""
_PREFIX = "fused_"

_OTHER_OPERATORS = 1.0
_OTHER_TARGET = 1.0
_OTHER_HARDWARE = 0.5
_TWICE_THE_WORK = 0.25
"""How far apart tasks are by which other operators are fused to the first, by what they are built
for, by where they were measured, and by how much there is to compute."""


class Relatives:
    """Tasks with a latency, arranged so that looking through a fleet's thousands takes no time.

    It is immutable, and so good for any thread.
    """

    def __init__(self, known: Iterable[KnownTask]) -> None:
        by_anchor: dict[str, dict[TaskKey, KnownTask]] = {}
        for task in known:
            by_anchor.setdefault(_anchor(_operators(task.name)), {})[task.key] = task
        self._by_anchor = {
            anchor: _Relation.of(list(found.values())) for anchor, found in by_anchor.items()
        }

    def nearest(self, task: KnownTask, limit: int) -> list[TaskKey]:
        """Choose tasks whose schedules a search may start from.

        Args:
            task: what is to be tuned; it may be among the known ones.
            limit: how many are wanted.

        Returns:
            Their keys, the nearest first: of the same first operator all. The same workload for
            another target or on other hardware is among the nearest.
        """
        relation = self._by_anchor.get(_anchor(_operators(task.name)))
        return [] if relation is None else relation.nearest(task, limit)


@dataclass(frozen=True)
class _Relation:
    """Tasks of the same first operator, a row each, by workload and target."""

    keys: list[TaskKey]
    workloads: np.ndarray
    targets: np.ndarray
    fingerprints: np.ndarray
    operators: np.ndarray
    """Of dtype object, as the three before: compared for being equal only."""
    log_flops: np.ndarray
    """Base 2, float64."""

    @classmethod
    def of(cls, known: list[KnownTask]) -> _Relation:
        known.sort(key=lambda one: (one.key.workload, one.key.target))
        return cls(
            [one.key for one in known],
            np.array([one.key.workload for one in known], dtype=object),
            np.array([one.key.target for one in known], dtype=object),
            np.array([one.key.fingerprint for one in known], dtype=object),
            np.array([_operators(one.name) for one in known], dtype=object),
            np.array([_log_flops(one) for one in known]),
        )

    def nearest(self, task: KnownTask, limit: int) -> list[TaskKey]:
        same = self.workloads == task.key.workload
        here = self.targets == task.key.target
        at_home = self.fingerprints == task.key.fingerprint
        alike = same | (self.operators == _operators(task.name))
        distances = _TWICE_THE_WORK * np.abs(self.log_flops - _log_flops(task))
        distances += _OTHER_OPERATORS * ~alike + _OTHER_TARGET * ~here + _OTHER_HARDWARE * ~at_home
        distances[same & here & at_home] = np.inf  # the task itself
        # Stable: of equals the first by workload and target.
        chosen = np.argsort(distances, kind="stable")[:limit]
        return [self.keys[i] for i in chosen if np.isfinite(distances[i])]


def _log_flops(task: KnownTask) -> float:
    return math.log2(max(task.flops, 1))


@lru_cache(maxsize=8192)
def _operators(name: str) -> str:
    """Return a task's name without what tells it from others of the same operators."""
    return _DIGITS.sub("", name)


def _anchor(name: str) -> str:
    """Return the first operator, which decides how a fused function is scheduled."""
    return name.removeprefix(_PREFIX).partition("_")[0]
