"""Building some candidates side by side, then timing them one after another on a quiet machine."""

from __future__ import annotations

import functools
import select
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent.measure.candidate import BuildRequest, live
from agent.measure.conditions import read_conditions
from agent.measure.outcome import MeasureOutcome, shorten_error
from agent.measure.sandbox import Sandbox, kill_strays, mentions_memory
from tunefleet.leases import MeasurePolicy
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import Conditions, Verdict

_BUSY_SLICE_S = 0.5
"""Builds that take longer are paused in between, so that nobody waits long to time something."""

_NOISE_LIMIT = 0.10
"""Samples further apart than this share of their median decide no close race."""

_FOREIGN_CORES_LIMIT = 0.2
"""Load of others that a candidate using every core may meet; beyond it, it is waiting for them."""

_FOREIGN_SHARE_OF_SPARE = 0.5
"""Cores that a candidate leaves idle may be used so far before shared caches and memory suffer."""


@dataclass(frozen=True)
class Bench:
    """Where and how the candidates of one batch are measured."""

    workload: Any
    target: Any
    policy: MeasurePolicy
    threads: int
    """Threads each candidate runs with."""
    cores: int
    """Cores they may run on."""
    build_workers: int
    quiet_timeout_s: float
    lock: MachineLock


@dataclass
class _Candidate:
    name: str
    sandbox: Sandbox
    started_at_unix_s: float
    build_s: float | None = None

    def outcome(self, verdict: Verdict, error: str) -> MeasureOutcome:
        return MeasureOutcome(
            candidate=self.name,
            verdict=verdict,
            error=shorten_error(error),
            build_s=self.build_s,
            started_at_unix_s=self.started_at_unix_s,
        )


def measure_batch(
    bench: Bench, batch: Sequence[tuple[str, str]], on_phase: Callable[[str, list[str]], None]
) -> Iterator[MeasureOutcome]:
    """Measure candidates.

    Args:
        bench: where and how.
        batch: name and trace of each.
        on_phase: told ``"build"`` or ``"run"`` and the names of those which enter that phase.

    Yields:
        One outcome for each, as soon as it is known.
    """
    for start in range(0, len(batch), bench.build_workers):
        chunk = batch[start : start + bench.build_workers]
        on_phase("build", [name for name, _ in chunk])
        with bench.lock.busy():
            candidates = [_begin(bench, name, trace) for name, trace in chunk]
        try:
            built: list[_Candidate] = []
            for candidate, failure in _await_builds(bench, candidates):
                if failure is None:
                    built.append(candidate)
                else:
                    yield _ended(candidate, failure, candidates)
            for candidate in built:
                on_phase("run", [candidate.name])
                yield _ended(candidate, _run(bench, candidate), candidates)
        finally:
            for candidate in candidates:
                candidate.sandbox.close()


def _begin(bench: Bench, name: str, trace: str) -> _Candidate:
    request = BuildRequest(bench.workload, trace, bench.target, bench.policy)
    sandbox = Sandbox(functools.partial(live, request), bench.policy, bench.threads)
    return _Candidate(name, sandbox, time.time())


def _ended(
    candidate: _Candidate, outcome: MeasureOutcome, candidates: list[_Candidate]
) -> MeasureOutcome:
    candidate.sandbox.close()
    kill_strays(known={other.sandbox.pid for other in candidates})
    return outcome


def _await_builds(
    bench: Bench, candidates: list[_Candidate]
) -> Iterator[tuple[_Candidate, MeasureOutcome | None]]:
    """Yield each candidate once its build has ended, with the outcome if it failed."""
    waiting = list(candidates)
    remaining_s = bench.policy.build_timeout_s
    while waiting:
        with bench.lock.busy():
            began = time.monotonic()
            for candidate in waiting:
                candidate.sandbox.resume()
            finished = _finished_within(waiting, min(_BUSY_SLICE_S, remaining_s))
            for candidate in waiting:
                if candidate not in finished:
                    candidate.sandbox.pause()
            remaining_s -= time.monotonic() - began
        for candidate in finished:
            waiting.remove(candidate)
            yield candidate, _build_failure(candidate)
        if remaining_s <= 0:
            for candidate in waiting:
                error = f"building exceeded {bench.policy.build_timeout_s:g} s"
                yield candidate, candidate.outcome(Verdict.TIMEOUT, error)
            return


def _finished_within(waiting: list[_Candidate], timeout_s: float) -> list[_Candidate]:
    """Wait until all have something to say, or the time is over."""
    deadline = time.monotonic() + timeout_s
    silent = {candidate.sandbox.fileno(): candidate for candidate in waiting}
    finished = []
    while silent:
        readable, _, _ = select.select(list(silent), [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            break
        finished += [silent.pop(fd) for fd in readable]
    return finished


def _build_failure(candidate: _Candidate) -> MeasureOutcome | None:
    try:
        message = candidate.sandbox.recv(time.monotonic() + 1.0)
    except TimeoutError:
        message = None
    if message is None or message.get("phase") == "failed":
        return _failure(candidate, message, "building", Verdict.BUILD_ERROR)
    candidate.build_s = float(message["build_s"])
    return None


def _failure(
    candidate: _Candidate, message: dict[str, Any] | None, phase: str, verdict: Verdict
) -> MeasureOutcome:
    if message is None:
        verdict, error = candidate.sandbox.autopsy()
        return candidate.outcome(verdict, f"while {phase}, {error}")
    error = str(message["error"])
    if message["out_of_memory"] or mentions_memory(error):
        verdict = Verdict.OUT_OF_MEMORY
    return candidate.outcome(verdict, error)


def _run(bench: Bench, candidate: _Candidate) -> MeasureOutcome:
    limit_s = bench.policy.run_timeout_s
    with bench.lock.quiet(bench.quiet_timeout_s) as quiet:
        candidate.sandbox.send({"op": "go"})
        try:
            message = candidate.sandbox.recv(time.monotonic() + limit_s)
        except TimeoutError:
            candidate.sandbox.kill()
            return candidate.outcome(Verdict.TIMEOUT, f"running exceeded {limit_s:g} s")
        conditions = read_conditions()
    if message is None or message.get("phase") != "ran":
        return _failure(candidate, message, "running", Verdict.RUNTIME_ERROR)
    return _assess(bench, candidate, message, conditions, quiet)


def _assess(
    bench: Bench,
    candidate: _Candidate,
    message: dict[str, Any],
    conditions: Conditions,
    quiet: bool,
) -> MeasureOutcome:
    samples = tuple(float(sample) for sample in message["samples_s"])
    spare = max(0, bench.cores - bench.threads)
    allowed = _FOREIGN_CORES_LIMIT + _FOREIGN_SHARE_OF_SPARE * spare
    foreign = message["foreign_cores"]
    spread = (max(samples) - min(samples)) / statistics.median(samples)
    verdict, error = Verdict.OK, ""
    if not quiet:
        verdict = Verdict.CONTENDED
        error = f"another process kept the machine busy for {bench.quiet_timeout_s:g} s"
    elif foreign is not None and foreign > allowed:
        verdict = Verdict.CONTENDED
        error = f"other processes used {foreign:.2f} cores meanwhile"
    elif spread > _NOISE_LIMIT:
        verdict = Verdict.NOISY
        error = f"the samples are {spread:.0%} apart"
    return MeasureOutcome(
        candidate=candidate.name,
        verdict=verdict,
        samples_s=samples,
        error=error,
        build_s=candidate.build_s,
        run_s=float(message["run_s"]),
        started_at_unix_s=candidate.started_at_unix_s,
        conditions=conditions,
    )
