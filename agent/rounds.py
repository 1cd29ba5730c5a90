"""One round: search for candidates, measure them, hand each over as a trial."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import structlog

from agent.frames import WorkerDied
from agent.measure.outcome import MeasureOutcome
from agent.recorder import TIMES_FORGIVEN, Recorder, lost_trial
from agent.search.messages import (
    Candidate,
    ErrorKind,
    FeaturizeRequest,
    Proposal,
    Request,
    SearchError,
)
from tunefleet.devices import DeviceProfile
from tunefleet.features import hardware_vector
from tunefleet.leases import FeaturizedTrace, MeasurePolicy, RoundSpec
from tunefleet.trials import Trial, trial_id

_log = structlog.get_logger(__name__)


class Searcher(Protocol):
    """What a round needs of :class:`agent.search.client.Searcher`."""

    async def propose(self, request: Request) -> Proposal:
        """Search for programs to measure, or raise SearchError."""

    async def featurize(self, request: FeaturizeRequest) -> tuple[FeaturizedTrace, ...]:
        """Compute features of known schedules, or raise SearchError."""


class Measurer(Protocol):
    """What a round needs of :class:`agent.measure.client.Measurer`."""

    def measure(
        self,
        workload_path: Path,
        target: str,
        candidates: Sequence[tuple[str, str]],
        policy: MeasurePolicy,
        best_s: float | None = None,
    ) -> AsyncGenerator[MeasureOutcome, None]:
        """Yield what came of each candidate."""


class RoundError(Exception):
    """A round that measured nothing, or not all."""

    def __init__(self, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent
        """Whether doing it again would not help."""


@dataclass(frozen=True)
class RoundReport:
    """What a round came to, beside its trials."""

    trials: int
    space_exhausted: bool
    model_refusal: str = ""
    """Why the model was not used; the round was then measured without it."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds of ``search`` and ``measure``, and what they were spent on: ``search_PHASE``
    by the search's own account, ``build`` and ``run`` summed over candidates (builds overlap)."""


@dataclass(frozen=True)
class RoundInput:
    """A round's work and what it needs, on this machine."""

    lease_id: str
    spec: RoundSpec
    workload_path: Path
    model_path: Path | None
    profile: DeviceProfile
    fencing_token: int = 0
    recorder: Recorder | None = None
    """Remembers what is measured, should the device go down meanwhile."""


async def run_round(
    work: RoundInput,
    searcher: Searcher,
    measurer: Measurer,
    deliver: Callable[[Trial], Awaitable[None]],
) -> RoundReport:
    """Carry out one round.

    Args:
        work: what to do.
        searcher: proposes candidates.
        measurer: measures them; what is in progress is ended if this is cancelled.
        deliver: takes each trial as soon as it is measured.

    Raises:
        RoundError: the workload cannot be searched, or nothing can be measured here.
    """
    begun = time.perf_counter()
    proposal, refusal = await _propose(work, searcher)
    searched = time.perf_counter()
    _log.info(
        "candidates proposed",
        workload=work.spec.workload,
        candidates=len(proposal.candidates),
        evaluated=proposal.stats.evaluated,
        exhausted=proposal.space_exhausted,
        model=proposal.model_version or None,
    )
    build_s, run_s = await measure_proposal(work, proposal, measurer, deliver)
    return RoundReport(
        trials=len(proposal.candidates),
        space_exhausted=proposal.space_exhausted,
        model_refusal=refusal,
        phase_seconds={
            "search": searched - begun,
            **{f"search_{name}": s for name, s in proposal.stats.seconds.items()},
            "measure": time.perf_counter() - searched,
            "build": build_s,
            "run": run_s,
        },
    )


async def _propose(work: RoundInput, searcher: Searcher) -> tuple[Proposal, str]:
    """Search; a model that does not pass its own test must not hold up the measuring."""
    request = Request(
        workload_path=work.workload_path,
        model_path=work.model_path,
        hardware=tuple(hardware_vector(work.profile, work.spec.target)),
        threads=work.profile.logical_cores,
        work=work.spec,
    )
    refusal = ""
    try:
        try:
            return await searcher.propose(request), refusal
        except SearchError as e:
            if e.kind is not ErrorKind.MODEL:
                raise
            refusal = f"cost model {work.spec.model_version} not used: {e.message}"
            _log.error("cost model refused", model=work.spec.model_version, why=e.message)
        return await searcher.propose(replace(request, model_path=None)), refusal
    except SearchError as e:
        raise RoundError(
            f"workload {work.spec.workload} cannot be searched ({e.kind}): {e.message}",
            permanent=True,
        ) from e


async def measure_proposal(
    work: RoundInput,
    proposal: Proposal,
    measurer: Measurer,
    deliver: Callable[[Trial], Awaitable[None]],
) -> tuple[float, float]:
    """Measure what is proposed; returns the seconds spent building and running.

    Raises:
        RoundError: nothing can be measured here.
    """
    by_name = {candidate.candidate: candidate for candidate in proposal.candidates}
    traces = {name: candidate.trace for name, candidate in by_name.items()}
    if work.recorder is not None:
        traces = await _without_dangerous(work, work.recorder, traces, deliver)
        await asyncio.to_thread(work.recorder.begin, work.lease_id, work.fencing_token, traces)
    pairs = list(traces.items())
    build_s = run_s = 0.0
    best_s = min((known.latency_s for known in work.spec.known), default=None)
    measure = functools.partial(measurer.measure, work.workload_path, work.spec.target)
    try:
        async with aclosing(measure(pairs, work.spec.measure, best_s)) as outcomes:
            async for outcome in outcomes:
                build_s += outcome.build_s or 0.0
                run_s += outcome.run_s or 0.0
                await deliver(_trial(work, by_name[outcome.candidate], outcome))
    except (WorkerDied, TimeoutError) as e:
        raise RoundError(f"this device cannot measure: {e}", permanent=False) from e
    return build_s, run_s


async def _without_dangerous(
    work: RoundInput,
    recorder: Recorder,
    traces: Mapping[str, str],
    deliver: Callable[[Trial], Awaitable[None]],
) -> dict[str, str]:
    """Leave out what the device went down with: under this lease, or more often than forgiven."""
    safe = {}
    for name, trace in traces.items():
        times = recorder.times(name)
        if recorder.knows(name, work.lease_id):
            _log.warning("candidate left out: the device went down while it ran", candidate=name)
        elif times > TIMES_FORGIVEN:
            error = f"not measured: the device went down {times} times while it ran"
            await deliver(lost_trial(work.lease_id, name, trace, error))
        else:
            safe[name] = trace
    return safe


def _trial(work: RoundInput, candidate: Candidate, outcome: MeasureOutcome) -> Trial:
    return Trial(
        trial_id=trial_id(work.lease_id, candidate.candidate, attempt=0),
        lease_id=work.lease_id,
        candidate=candidate.candidate,
        trace=candidate.trace,
        verdict=outcome.verdict,
        samples_s=outcome.samples_s,
        error=outcome.error,
        features=candidate.features,
        predicted=candidate.predicted,
        model_version=work.spec.model_version if candidate.predicted is not None else "",
        explored=candidate.explored,
        build_s=outcome.build_s,
        run_s=outcome.run_s,
        started_at_unix_s=outcome.started_at_unix_s,
        conditions=outcome.conditions,
    )
