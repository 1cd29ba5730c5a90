"""The evolutionary search, over any space of programs: no TVM and no model in here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

SEED_LIMIT = 2**31 - 1
"""TVM takes seeds from 1 to this."""

_BATCH = 32
"""Random programs drawn at once."""
_STALE_BATCHES = 3
"""Batches in a row without a new program after which a space counts as exhausted."""
_TOURNAMENT = 16
"""Programs of which the best becomes a parent.

Few generations need strong selection; still larger ones crowd round what an unsure model likes.
"""
_KNOWN_PARENTS = 0.25
"""Share of children that descend from measured programs, whatever the model thinks of these."""
_UNRANKED_POOL = 4
"""Without a model, this many programs per trial are enough to pick different ones from."""


@dataclass(frozen=True, eq=False)
class Program:
    """One scheduled program."""

    candidate: str
    """Structural hash: equal programs have equal names."""
    features: FloatArray = field(repr=False)
    """float32 [1 + stores, 172], raw: what a model is fed. First the row of the schedule that
    ``trace`` is, then the program's stores, of which there may be none."""
    trace: Any = field(repr=False)
    """What the space needs to mutate it and to write it down."""

    @property
    def stores(self) -> FloatArray:
        """The features of the buffer stores alone, float32 [stores, 172]: what a trial keeps."""
        return self.features[1:]


class Space(Protocol):
    """Programs that compute the same thing. Invalid ones are left out of all results."""

    def sample(self, seeds: Sequence[int]) -> list[Program]:
        """Draw one random program for each seed."""

    def mutate(self, parents: Sequence[Program], seeds: Sequence[int]) -> list[Program]:
        """Change one decision of each parent, as the seed of the same place says."""


Rank = Callable[[Sequence[Program]], tuple[FloatArray, FloatArray]]
"""Gives scores (higher is faster) and spreads (>= 0), float32 [programs] each."""


@dataclass(frozen=True)
class Plan:
    """What is wanted of one search."""

    trials: int
    population: int
    generations: int
    seed: int
    tried: frozenset[str]


@dataclass
class Pool:
    """All different programs met so far, in the order met, ranked if there is a model."""

    rank: Rank | None
    programs: dict[str, Program] = field(default_factory=dict)
    score: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)

    def add(self, programs: Iterable[Program]) -> int:
        """Take in programs, rank the new ones, and return how many those are."""
        new = {p.candidate: p for p in programs if p.candidate not in self.programs}
        self.programs |= new
        if self.rank is not None and new:
            scores, spreads = self.rank(list(new.values()))
            self.score |= dict(zip(new, scores.tolist(), strict=True))
            self.spread |= dict(zip(new, spreads.tolist(), strict=True))
        return len(new)

    def untried(self, tried: frozenset[str]) -> list[Program]:
        """Return the programs that may be proposed."""
        return [p for p in self.programs.values() if p.candidate not in tried]


@dataclass(frozen=True)
class Found:
    """The outcome of a search."""

    pool: Pool
    exhausted: bool
    """The space has fewer untried programs than trials were asked for."""
    sampled: int
    """Random programs drawn, invalid and equal ones included."""


def evolve(space: Space, rank: Rank | None, known: Sequence[Program], plan: Plan) -> Found:
    """Search a space for programs worth measuring.

    Random programs, then generations of mutants whose parents win tournaments by score or are
    among the known ones. Without a model there is nothing to select by: random programs and
    mutants of known ones are all there is.

    Args:
        space: where the programs come from.
        rank: the cost model, or ``None``.
        known: programs to breed from: measured ones, fastest first, or what was fast elsewhere.
        plan: sizes and seed; the same plan finds the same programs.
    """
    rng = random.Random(plan.seed)
    pool = Pool(rank)
    pool.add(known)
    if plan.trials < 1:
        return Found(pool, exhausted=False, sampled=0)
    population = plan.population
    if rank is None:
        population = min(population, max(_BATCH, _UNRANKED_POOL * plan.trials))

    sampled, stale = _draw(space, pool, rng, population)
    if stale < _STALE_BATCHES:
        for _ in range(plan.generations if rank else min(1, len(known))):
            parents = _parents(pool, known, rng, population)
            pool.add(space.mutate(parents, _seeds(rng, len(parents))))

    while len(pool.untried(plan.tried)) < plan.trials and stale < _STALE_BATCHES:
        stale = 0 if pool.add(space.sample(_seeds(rng, _BATCH))) else stale + 1
        sampled += _BATCH
    return Found(pool, len(pool.untried(plan.tried)) < plan.trials, sampled)


def _draw(space: Space, pool: Pool, rng: random.Random, count: int) -> tuple[int, int]:
    """Draw ``count`` random programs; return how many were drawn and the last stale batches."""
    sampled = stale = 0
    while sampled < count and stale < _STALE_BATCHES:
        batch = min(_BATCH, count - sampled)
        stale = 0 if pool.add(space.sample(_seeds(rng, batch))) else stale + 1
        sampled += batch
    return sampled, stale


def _parents(pool: Pool, known: Sequence[Program], rng: random.Random, count: int) -> list[Program]:
    everyone = list(pool.programs.values())
    parents: list[Program] = []
    from_known = round(count * _KNOWN_PARENTS) if known else 0
    for number in range(count):
        if number < from_known or not pool.score:
            # The known ones are in order of latency, so the smallest place wins.
            parents.append(known[min(rng.randrange(len(known)) for _ in range(2))])
        else:
            entrants = [everyone[rng.randrange(len(everyone))] for _ in range(_TOURNAMENT)]
            parents.append(max(entrants, key=lambda p: pool.score[p.candidate]))
    return parents


def _seeds(rng: random.Random, count: int) -> list[int]:
    return [rng.randint(1, SEED_LIMIT) for _ in range(count)]
