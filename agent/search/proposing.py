"""One round's search, from the request to the proposal."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agent.search.choose import Pick, choose
from agent.search.evolution import FloatArray, Found, Plan, Program, evolve
from agent.search.executor import PoliteExecutor
from agent.search.lru import Recent
from agent.search.messages import (
    Candidate,
    ErrorKind,
    Proposal,
    Request,
    SearchError,
    SearchStats,
)
from agent.search.ranker import ModelError, Ranker
from agent.search.space import DesignSpace, WorkloadError
from tunefleet.features import HARDWARE_FEATURES
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import ProgramFeatures

_SPACES_KEPT = 48
"""Workloads in turn in one campaign; each keeps up to 2 MiB of features."""
_MODELS_KEPT = 2
_REPLAYED = 0.125
"""Share of a round's trials for the nearest of the related schedules. The others may still be
chosen for their score, and all of them become parents where nothing was measured yet."""
_RANKED_AT_ONCE = 128
"""Enough to keep the threads busy, few enough to pause soon when quiet is wanted."""


class Proposer:
    """Searches, and keeps what later rounds of the same workloads can use again."""

    def __init__(self, lock: MachineLock) -> None:
        self._lock = lock
        self._spaces: Recent[tuple[str, str], DesignSpace] = Recent(_SPACES_KEPT)
        self._rankers: Recent[tuple[Path, int], Ranker] = Recent(_MODELS_KEPT)

    def propose(self, request: Request) -> Proposal:
        """Search for programs to measure.

        The same request gives the same proposal.

        Raises:
            SearchError: naming what of the request cannot be used.
        """
        executor = PoliteExecutor(self._lock, request.threads)
        try:
            return self._propose(request, executor)
        except WorkloadError as e:
            raise SearchError(ErrorKind.WORKLOAD, str(e)) from e
        except ModelError as e:
            raise SearchError(ErrorKind.MODEL, str(e)) from e
        finally:
            executor.close()

    def _propose(self, request: Request, executor: PoliteExecutor) -> Proposal:
        work = request.work
        if len(request.hardware) != len(HARDWARE_FEATURES):
            raise SearchError(
                ErrorKind.REQUEST,
                f"the hardware vector has {len(request.hardware)} values "
                f"instead of {len(HARDWARE_FEATURES)}",
            )
        ranker = self._ranker(request, executor)
        rank = _RankInBatches(ranker, request.hardware, executor) if ranker else None
        space = self._space(request, executor)
        with space.work_on(executor):
            baseline: list[tuple[Program, Pick]] = []
            if work.include_baseline and space.workload not in work.tried and work.trials > 0:
                baseline = [(space.baseline(), Pick(0, explored=False))]
            tried = work.tried | {space.workload}
            known = space.load([k.trace for k in sorted(work.known, key=lambda k: k.latency_s)])
            related = space.load(work.related)
            plan = Plan(
                trials=work.trials - len(baseline),
                population=work.search.population,
                generations=work.search.generations,
                seed=work.seed,
                tried=tried,
            )
            found = evolve(space, rank, known or related, plan)
            found.pool.add(related)
            picked = baseline + _pick(found, plan, work.search.exploration, related)
            if rank is not None and baseline:
                found.pool.add([baseline[0][0]])
            texts = space.write([program for program, _ in picked])
        seconds = {**space.seconds, "wait": executor.waited_s}
        if rank is not None:
            seconds["rank"] = rank.seconds
        return Proposal(
            candidates=tuple(
                _candidate(program, text, pick, found.pool.score.get(program.candidate))
                for (program, pick), text in zip(picked, texts, strict=True)
                if text is not None
            ),
            space_exhausted=found.exhausted,
            model_version=ranker.version if ranker else "",
            stats=SearchStats(found.sampled, len(found.pool.programs), seconds),
        )

    def _ranker(self, request: Request, executor: PoliteExecutor) -> Ranker | None:
        path = request.model_path
        if path is None:
            return None
        return self._rankers.get(
            (path, request.threads),
            lambda: executor.run(lambda p: Ranker(p, request.threads), path),
        )

    def _space(self, request: Request, executor: PoliteExecutor) -> DesignSpace:
        def make(path: Path) -> DesignSpace:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                raise WorkloadError(f"the workload {path} cannot be read: {e}") from e
            space = DesignSpace(text, request.work.target)
            if space.workload != request.work.workload:
                raise WorkloadError(
                    f"{path} holds workload {space.workload} instead of {request.work.workload}"
                )
            return space

        return self._spaces.get(
            (request.work.workload, request.work.target),
            lambda: executor.run(make, request.workload_path),
        )


class _RankInBatches:
    """A model ready to rank for one device, pausing between batches."""

    def __init__(self, ranker: Ranker, hardware: Sequence[float], executor: PoliteExecutor) -> None:
        self._ranker = ranker
        self._hardware = hardware
        self._executor = executor
        self.seconds = 0.0

    def __call__(self, programs: Sequence[Program]) -> tuple[FloatArray, FloatArray]:
        waited, begun = self._executor.waited_s, time.perf_counter()
        results = [
            self._executor.run(
                lambda batch: self._ranker.rank([p.features for p in batch], self._hardware),
                programs[start : start + _RANKED_AT_ONCE],
            )
            for start in range(0, len(programs), _RANKED_AT_ONCE)
        ]
        self.seconds += time.perf_counter() - begun - (self._executor.waited_s - waited)
        scores, spreads = zip(*results, strict=True)
        return np.concatenate(scores), np.concatenate(spreads)


def _pick(
    found: Found, plan: Plan, exploration: float, related: Sequence[Program]
) -> list[tuple[Program, Pick]]:
    pool = found.pool
    replayed = _replayed(related, plan)
    first = [(program, Pick(place, explored=True)) for place, program in enumerate(replayed)]
    programs = pool.untried(plan.tried | {program.candidate for program in replayed})
    score = spread = None
    if pool.rank is not None:
        score = np.asarray([pool.score[p.candidate] for p in programs], np.float32)
        spread = np.asarray([pool.spread[p.candidate] for p in programs], np.float32)
    trials = plan.trials - len(replayed)
    picks = choose([p.features for p in programs], score, spread, trials, exploration)
    return first + [(programs[pick.index], pick) for pick in picks]


def _replayed(related: Sequence[Program], plan: Plan) -> list[Program]:
    """Return the nearest of what was fast elsewhere: measured whatever the model thinks of it."""
    new = {p.candidate: p for p in related if p.candidate not in plan.tried}
    return list(new.values())[: round(plan.trials * _REPLAYED)]


def _candidate(program: Program, text: str, pick: Pick, score: float | None) -> Candidate:
    return Candidate(
        candidate=program.candidate,
        trace=text,
        features=ProgramFeatures(len(program.stores), program.stores.tobytes()),
        predicted=score if score is not None and math.isfinite(score) else None,
        explored=pick.explored,
    )
