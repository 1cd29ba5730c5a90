"""What goes wrong when, to whom: drawn from a seed before anything starts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

_Value = TypeVar("_Value")


class Kind(StrEnum):
    """A kind of fault that the bench itself inflicts; agents' calls suffer others beside these."""

    KILL = "kill"
    """SIGKILL; coordinator and agents are started again a little later."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT a while later."""
    CUT = "cut"
    """An agent's connections are reset."""
    REFUSE = "refuse"
    """An agent's connections are reset, and new ones as well for a while."""
    SILENCE = "silence"
    """An agent's connections stay open, but nothing passes: they are half open."""
    DELAY = "delay"
    """What passes between an agent and the coordinator comes late, for a while."""
    FULL_DISK = "full_disk"
    """No byte is free on the disk of a home, for a while."""
    CLOCK = "clock"
    """Killed, and started again with its clock two days fast or slow."""


class Role(StrEnum):
    """Whom a fault hits."""

    COORDINATOR = "coordinator"
    JOB = "job"
    """A process that the coordinator started: an import, a training, a compilation, a report."""
    AGENT = "agent"
    WORKER = "worker"
    """A process that an agent started: a search, a measurement, a candidate, a benchmark."""


@dataclass(frozen=True)
class Fault:
    """One fault."""

    at_s: float
    """Seconds after the beginning."""
    kind: Kind
    role: Role
    pick: float
    """From 0 to 1: which of those that play the role at that moment."""
    seconds: float
    """How long it lasts, or until what was killed is started again."""


MEAN_GAP_S = 3.0
"""Between two faults; calls suffer others beside these."""

LONG_STOP_S = 75.0
"""Longer than a lease holds (60 s): whoever wakes up has lost its round to another."""

_ROLES = {
    Kind.KILL: {Role.COORDINATOR: 2, Role.JOB: 2, Role.AGENT: 3, Role.WORKER: 5},
    Kind.STOP: {Role.COORDINATOR: 2, Role.JOB: 1, Role.AGENT: 3, Role.WORKER: 3},
    Kind.FULL_DISK: {Role.COORDINATOR: 1, Role.AGENT: 1},
    Kind.CLOCK: {Role.COORDINATOR: 1, Role.AGENT: 1},
}
"""Weights of the roles; what befalls a connection befalls an agent."""

_KINDS = {
    Kind.KILL: 30,
    Kind.STOP: 18,
    Kind.CUT: 18,
    Kind.REFUSE: 8,
    Kind.SILENCE: 8,
    Kind.DELAY: 8,
    Kind.FULL_DISK: 5,
    Kind.CLOCK: 5,
}

_SECONDS = {
    Kind.KILL: (0.0, 4.0),
    Kind.STOP: (0.5, 8.0),
    Kind.CUT: (0.0, 0.0),
    Kind.REFUSE: (1.0, 10.0),
    Kind.SILENCE: (2.0, 20.0),
    Kind.DELAY: (2.0, 10.0),
    Kind.FULL_DISK: (2.0, 10.0),
    Kind.CLOCK: (0.0, 4.0),
}
_LONG_STOPS = 0.08
"""Share of the stops that outlast a lease."""


def schedule(seed: int, length_s: float, mean_gap_s: float = MEAN_GAP_S) -> Iterator[Fault]:
    """Draw faults in the order in which they strike; the same seed draws the same ones.

    Args:
        seed: of everything.
        length_s: seconds after which no further fault strikes.
        mean_gap_s: mean seconds between two; gaps are exponential, so that some faults coincide.
    """
    chance = random.Random(f"chaos/{seed}")
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(1 / mean_gap_s)) < length_s:
        kind = _draw(chance, _KINDS)
        role = _draw(chance, _ROLES.get(kind, {Role.AGENT: 1}))
        seconds = chance.uniform(*_SECONDS[kind])
        if kind is Kind.STOP and chance.random() < _LONG_STOPS:
            seconds = LONG_STOP_S
        yield Fault(at_s, kind, role, chance.random(), seconds)


def _draw(chance: random.Random, weights: Mapping[_Value, int]) -> _Value:
    return chance.choices(list(weights), list(weights.values()))[0]
