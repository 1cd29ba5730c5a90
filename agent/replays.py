"""Known schedules: their features computed, and themselves measured again."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent.recorder import Recorder
from agent.rounds import (
    Measurer,
    RoundError,
    RoundInput,
    RoundReport,
    Searcher,
    measure_proposal,
)
from agent.search.messages import (
    Candidate,
    ErrorKind,
    FeaturizeRequest,
    Proposal,
    SearchError,
    SearchStats,
)
from tunefleet.devices import DeviceProfile
from tunefleet.leases import FeaturizedTrace, FeaturizeSpec, ReplaySpec, RoundSpec
from tunefleet.trials import Trial, Verdict, trial_id

_log = structlog.get_logger(__name__)

_WORTH_ANOTHER_TRY = {ErrorKind.TIMEOUT}
"""A busy machine may be late; everything else would come again."""


@dataclass(frozen=True)
class ReplayInput:
    """Known schedules and what measuring them needs, on this machine."""

    lease_id: str
    spec: ReplaySpec
    workload_path: Path
    profile: DeviceProfile
    fencing_token: int = 0
    recorder: Recorder | None = None


async def featurize(
    spec: FeaturizeSpec | ReplaySpec, workload_path: Path, threads: int, searcher: Searcher
) -> tuple[FeaturizedTrace, ...]:
    """Compute the features of known schedules.

    Returns:
        One result for each; those that do not apply have the reason.

    Raises:
        RoundError: the workload cannot be used here.
    """
    request = FeaturizeRequest(
        workload_path=workload_path,
        workload=spec.workload,
        target=spec.target,
        traces=spec.traces,
        threads=threads,
    )
    try:
        return await searcher.featurize(request)
    except SearchError as e:
        raise RoundError(
            f"the schedules of workload {spec.workload} cannot be applied ({e.kind}): {e.message}",
            permanent=e.kind not in _WORTH_ANOTHER_TRY,
        ) from e


async def run_replay(
    work: ReplayInput,
    searcher: Searcher,
    measurer: Measurer,
    deliver: Callable[[Trial], Awaitable[None]],
) -> RoundReport:
    """Measure known schedules; what does not apply becomes a trial with a build error.

    Args:
        work: what to do.
        searcher: applies the schedules and computes their features.
        measurer: measures them; what is in progress is ended if this is cancelled.
        deliver: takes each trial as soon as it is measured.

    Raises:
        RoundError: the workload cannot be used, or nothing can be measured here.
    """
    begun = time.perf_counter()
    spec = work.spec
    results = await featurize(spec, work.workload_path, work.profile.logical_cores, searcher)
    trace_of = {named.candidate: named.trace for named in spec.traces}
    candidates: list[Candidate] = []
    for result in results:
        trace = trace_of[result.candidate]
        if result.features is None:
            _log.warning("schedule not replayed", candidate=result.candidate, why=result.error)
            await deliver(_failed(work, result, trace))
        else:
            candidates.append(
                Candidate(result.candidate, trace, result.features, predicted=None, explored=False)
            )
    applied = time.perf_counter()
    proposal = Proposal(tuple(candidates), False, "", SearchStats(0, len(candidates), {}))
    build_s, run_s = await measure_proposal(_as_round(work), proposal, measurer, deliver)
    return RoundReport(
        trials=len(results),
        space_exhausted=False,
        phase_seconds={
            "apply": applied - begun,
            "measure": time.perf_counter() - applied,
            "build": build_s,
            "run": run_s,
        },
    )


def _as_round(work: ReplayInput) -> RoundInput:
    """A replay is a round whose candidates are known beforehand."""
    spec = work.spec
    round_spec = RoundSpec(
        workload=spec.workload,
        workload_digest=spec.workload_digest,
        target=spec.target,
        trials=len(spec.traces),
        seed=0,
        measure=spec.measure,
    )
    return RoundInput(
        work.lease_id,
        round_spec,
        work.workload_path,
        None,
        work.profile,
        work.fencing_token,
        work.recorder,
    )


def _failed(work: ReplayInput, result: FeaturizedTrace, trace: str) -> Trial:
    return Trial(
        trial_id=trial_id(work.lease_id, result.candidate, attempt=0),
        lease_id=work.lease_id,
        candidate=result.candidate,
        trace=trace,
        verdict=Verdict.BUILD_ERROR,
        error=result.error,
        started_at_unix_s=time.time(),
    )
