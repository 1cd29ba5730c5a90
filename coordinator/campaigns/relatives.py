"""Which tasks are alike enough that what is fast for one may be fast for the other.

Transfer-tuning (Gibson and Cano, PACT 2022): schedules of one workload, applied to another of the
same operators, are good ones to start from. Sizes that do not divide are adapted by TVM as a trace
is applied, and what does not fit at all the agent leaves out, so being alike need not be exact.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

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


def nearest_relatives(task: KnownTask, known: Iterable[KnownTask], limit: int) -> list[TaskKey]:
    """Choose tasks whose schedules a search may start from.

    Args:
        task: what is to be tuned.
        known: tasks with a latency; the task itself may be among them.
        limit: how many are wanted.

    Returns:
        Their keys, the nearest first: of the same first operator all. The same workload for
        another target or on other hardware is among the nearest.
    """
    name = _operators(task.name)
    anchor = _anchor(name)
    distances: dict[TaskKey, float] = {}
    for other in known:
        other_name = _operators(other.name)
        if other.key == task.key or _anchor(other_name) != anchor:
            continue
        distance = _distance(task, other)
        if other.key.workload != task.key.workload and other_name != name:
            distance += _OTHER_OPERATORS
        distances[other.key] = min(distance, distances.get(other.key, distance))
    by_distance = sorted(distances, key=lambda key: (distances[key], key.workload, key.target))
    return by_distance[:limit]


def _distance(task: KnownTask, other: KnownTask) -> float:
    distance = 0.0
    if other.key.target != task.key.target:
        distance += _OTHER_TARGET
    if other.key.fingerprint != task.key.fingerprint:
        distance += _OTHER_HARDWARE
    return distance + _TWICE_THE_WORK * abs(math.log2(max(other.flops, 1) / max(task.flops, 1)))


def _operators(name: str) -> str:
    """Return a task's name without what tells it from others of the same operators."""
    return _DIGITS.sub("", name)


def _anchor(name: str) -> str:
    """Return the first operator, which decides how a fused function is scheduled."""
    return name.removeprefix(_PREFIX).partition("_")[0]
