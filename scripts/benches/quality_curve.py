"""What a tuning run knew at any second, and the first second at which it knew enough."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from coordinator.state.estimates import Estimates


@dataclass(frozen=True)
class Event:
    """One candidate that was measured."""

    seconds: float
    """From the begin of the run, when its latency was known."""
    workload: str
    """Structural hash of the task."""
    latency_s: float | None
    """Of one call; ``None`` where it failed."""
    trace: str
    """The schedule, as JSON."""


@dataclass(frozen=True)
class Point:
    """How far a run was at one moment."""

    seconds: float
    trials: int
    latency_s: float
    """Sum over tasks of weight times best latency."""


@dataclass(frozen=True)
class Run:
    """One network's tuning by one side."""

    seconds: float
    """From the model being handed over to the last trial."""
    weights: Mapping[str, int]
    """How often the network calls each workload."""
    events: tuple[Event, ...]
    """In order of time."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Files with the workloads as TVM's JSON, where schedules are to be applied later."""
    prepared: str = ""
    """File with the network that those workloads come from."""
    library: str = ""
    """The network compiled with the best schedules at the end, where the run did so."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by what they were spent on, where known."""

    def save(self, path: Path) -> None:
        """Write it as JSON, at once or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what :meth:`save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        values["events"] = tuple(Event(**event) for event in values["events"])
        return cls(**values)

    def trials(self, seconds: float = math.inf) -> int:
        """Count the candidates measured by then, failed ones included."""
        return sum(event.seconds <= seconds for event in self.events)

    def best(self, seconds: float = math.inf) -> dict[str, Event]:
        """Return the candidate of each workload that was taken to be the fastest by then.

        Those measured several times have their estimate for a latency, as the coordinator has it.
        """
        choices = _Choices()
        for event in self.events:
            if event.seconds <= seconds:
                choices.add(event)
        return choices.best

    def changes(self, until: float = math.inf) -> list[float]:
        """Return the seconds at which the best of a task became another, each once, in order."""
        choices, times = _Choices(), dict[float, None]()
        for event in self.events:
            if event.seconds <= until:
                before = choices.trace(event.workload)
                choices.add(event)
                if choices.trace(event.workload) != before:
                    times[event.seconds] = None
        return list(times)

    def curve(self) -> list[Point]:
        """Return the estimated latency after each change, once every task has a latency.

        Tasks that never get one, since all their candidates fail, are not counted at all.
        """
        return list(self._points())

    def _points(self) -> Iterator[Point]:
        measured = self.best().keys() & self.weights.keys()
        choices = _Choices()
        for number, event in enumerate(self.events, 1):
            before = choices.best.get(event.workload)
            choices.add(event)
            if choices.best.get(event.workload) == before:
                continue
            if choices.best.keys() >= measured:
                best = choices.best
                total = sum(self.weights[n] * (best[n].latency_s or 0.0) for n in measured)
                yield Point(event.seconds, number, total)


class _Choices:
    """What is taken to be the fastest of each workload as events come in."""

    def __init__(self) -> None:
        self._estimates: dict[str, Estimates] = {}
        self._first: dict[tuple[str, str], Event] = {}
        self.best: dict[str, Event] = {}

    def add(self, event: Event) -> None:
        if event.latency_s is None:
            return
        known = self._estimates.setdefault(event.workload, Estimates())
        known.add(event.trace, event.latency_s)
        self._first.setdefault((event.workload, event.trace), event)
        chosen = self._first[event.workload, known.best]
        self.best[event.workload] = replace(chosen, latency_s=known.best_s)

    def trace(self, workload: str) -> str:
        return self.best[workload].trace if workload in self.best else ""


@dataclass(frozen=True)
class Match:
    """When a run had caught up with another's result, as far as was looked."""

    after_s: float
    """The last moment at which it was seen not to have."""
    by_s: float
    """The first at which it was seen to have."""


def first_match(
    times: Sequence[float], matches: Callable[[float], bool], resolution_s: float = 0.0
) -> Match | None:
    """Find by bisection when a run has caught up, taking it that it never falls back again.

    Args:
        times: moments at which something improved, in order.
        matches: tells whether it has caught up at such a moment; slow, called for few of them.
        resolution_s: an interval this short is good enough.

    Returns:
        The bracket, or ``None`` where it has not even at the last moment.
    """
    if not times or not matches(times[-1]):
        return None
    low, high = -1, len(times) - 1
    while high - low > 1 and times[high] - (times[low] if low >= 0 else 0.0) > resolution_s:
        middle = (low + high) // 2
        if matches(times[middle]):
            high = middle
        else:
            low = middle
    return Match(times[low] if low >= 0 else 0.0, times[high])


def seconds_to_within(run: Run, share: float) -> float:
    """Return when a run's estimate first came within a share of its final value."""
    points = run.curve()
    if not points:
        return run.seconds
    wanted = points[-1].latency_s * (1 + share)
    return next(point.seconds for point in points if point.latency_s <= wanted)
