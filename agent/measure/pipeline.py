"""Building a few candidates at all times, and timing each alone as soon as it is built."""

from __future__ import annotations

import functools
import select
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psutil

from agent.measure.canary import Canary
from agent.measure.candidate import BuildRequest, live
from agent.measure.conditions import read_conditions
from agent.measure.history import CanaryHistory
from agent.measure.outcome import MeasureOutcome, better, shorten_error
from agent.measure.sandbox import Sandbox, TooManyProcessesError, mentions_memory
from agent.measure.strays import kill_strays
from agent.measure.throttle import ThrottleSensor, why_throttled
from agent.measure.verdicts import Findings, judge
from tunefleet.leases import MeasurePolicy
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import Conditions, Verdict

_BUSY_SLICE_S = 0.5
"""Builds that take longer are paused in between, so that nobody waits long to time something."""

_ATTEMPTS_WHILE_DISTURBED = 2
"""Attempts after a candidate whose samples stayed spoilt: a neighbour that outlasted several rests
is there to stay, and each further one costs time that measures nothing."""

_SPARE_BYTES = 256 * 2**20
"""Memory that must be available for another candidate to be built beside those under way."""


@dataclass(frozen=True)
class Bench:
    """Where and how the candidates of one batch are measured."""

    workload: Any
    target: Any
    policy: MeasurePolicy
    threads: int
    """Threads each candidate runs with."""
    build_workers: int
    quiet_timeout_s: float
    lock: MachineLock
    canary: Canary | None
    history: CanaryHistory
    inputs: Sequence[Sequence[Any]] = ()
    """Sets of arguments for the candidates, used in turn."""
    sensor: ThrottleSensor = field(default_factory=ThrottleSensor)


@dataclass
class _Candidate:
    name: str
    sandbox: Sandbox
    started_at_unix_s: float
    left_s: float
    """What it may still build, without the time it is paused."""
    build_s: float | None = None
    build_cpu_s: float | None = None

    def outcome(self, verdict: Verdict, error: str) -> MeasureOutcome:
        return MeasureOutcome(
            candidate=self.name,
            verdict=verdict,
            error=shorten_error(error),
            build_s=self.build_s,
            build_cpu_s=self.build_cpu_s,
            started_at_unix_s=self.started_at_unix_s,
        )


def measure_batch(
    bench: Bench,
    batch: Sequence[tuple[str, str]],
    on_phase: Callable[[str, list[str]], None],
    best_s: float | None = None,
) -> Iterator[MeasureOutcome]:
    """Measure candidates.

    Args:
        bench: where and how.
        batch: name and trace of each.
        on_phase: told ``"build"``, ``"built"`` or ``"run"`` and the names of those which enter
            that phase.
        best_s: the best latency known of the workload here, in seconds.

    Yields:
        One outcome for each, as soon as it is known.
    """
    line = _Line(bench, batch, on_phase, best_s)
    try:
        yield from line.outcomes()
    finally:
        line.close()


class _Line:
    """Candidates on their way: waiting, being built, ready to be timed."""

    def __init__(
        self,
        bench: Bench,
        batch: Sequence[tuple[str, str]],
        on_phase: Callable[[str, list[str]], None],
        best_s: float | None,
    ) -> None:
        self._bench = bench
        self._todo = deque(batch)
        self._on_phase = on_phase
        self._best_s = best_s
        self._building: list[_Candidate] = []
        self._ready: deque[_Candidate] = deque()
        self._leaving: list[_Candidate] = []
        self._disturbed = False

    def outcomes(self) -> Iterator[MeasureOutcome]:
        while self._todo or self._building or self._ready:
            yield from self._build_slice()
            yield from self._time_ready()

    def close(self) -> None:
        self._leaving += [*self._building, *self._ready]
        self._building.clear()
        self._ready.clear()
        self._bury()

    def _build_slice(self) -> Iterator[MeasureOutcome]:
        """Build until the first candidate has ended its build, or for a while."""
        failures: list[MeasureOutcome] = []
        with self._bench.lock.busy():
            for candidate in self._building:
                candidate.sandbox.resume()
            self._bury()
            while self._has_room():
                self._begin(*self._todo.popleft())
            began = time.monotonic()
            ended = self._ended_within(min([_BUSY_SLICE_S, *(c.left_s for c in self._building)]))
            spent_s = time.monotonic() - began
            for candidate in self._building:
                if candidate not in ended:
                    candidate.sandbox.pause()
        for candidate in list(self._building):
            candidate.left_s -= spent_s
            if candidate in ended:
                self._building.remove(candidate)
                failure = _build_failure(candidate)
                if failure is None:
                    self._on_phase("built", [candidate.name])
                    self._ready.append(candidate)
                else:
                    failures.append(failure)
                    self._leaving.append(candidate)
            elif candidate.left_s <= 0:
                self._building.remove(candidate)
                error = f"building exceeded {self._bench.policy.build_timeout_s:g} s"
                failures.append(candidate.outcome(Verdict.TIMEOUT, error))
                self._leaving.append(candidate)
        yield from failures

    def _has_room(self) -> bool:
        if not self._todo or len(self._building) >= self._bench.build_workers:
            return False
        under_way = len(self._building) + len(self._ready)
        if under_way == 0:
            return True
        if under_way >= 2 * self._bench.build_workers:
            return False
        return psutil.virtual_memory().available > _SPARE_BYTES

    def _begin(self, name: str, trace: str) -> None:
        bench = self._bench
        self._on_phase("build", [name])
        request = BuildRequest(
            bench.workload, trace, bench.target, bench.policy, bench.canary, bench.inputs
        )
        sandbox = Sandbox(functools.partial(live, request), bench.policy, bench.threads)
        self._building.append(
            _Candidate(name, sandbox, time.time(), left_s=bench.policy.build_timeout_s)
        )

    def _ended_within(self, timeout_s: float) -> list[_Candidate]:
        if not self._building:
            return []
        sandboxes = {candidate.sandbox.fileno(): candidate for candidate in self._building}
        readable, _, _ = select.select(list(sandboxes), [], [], max(0.0, timeout_s))
        return [sandboxes[fd] for fd in readable]

    def _time_ready(self) -> Iterator[MeasureOutcome]:
        while self._ready:
            # While others compute, building goes on; once enough wait, it is they who must stop.
            can_build = self._todo or self._building
            hurry = not can_build or len(self._ready) >= self._bench.build_workers
            with self._bench.lock.quiet(self._bench.quiet_timeout_s if hurry else 0.0) as quiet:
                if not (quiet or hurry):
                    return
                self._bury()
                candidate = self._ready.popleft()
                self._on_phase("run", [candidate.name])
                outcome = self._run(candidate, quiet)
            self._leaving.append(candidate)
            self._best_s = better(self._best_s, outcome)
            yield outcome

    def _run(self, candidate: _Candidate, quiet: bool) -> MeasureOutcome:
        bench = self._bench
        limit_s = bench.policy.run_timeout_s
        before = bench.sensor.read()
        usual_s = bench.history.usual_s()
        attempts = bench.policy.max_attempts
        if self._disturbed:
            attempts = min(attempts, _ATTEMPTS_WHILE_DISTURBED)
        candidate.sandbox.send(
            {"best_s": self._best_s, "usual_s": usual_s, "max_attempts": attempts}
        )
        try:
            message = candidate.sandbox.recv(time.monotonic() + limit_s)
        except TimeoutError:
            candidate.sandbox.kill()
            return candidate.outcome(Verdict.TIMEOUT, f"running exceeded {limit_s:g} s")
        except TooManyProcessesError as e:
            candidate.sandbox.kill()
            return candidate.outcome(Verdict.CRASHED, f"while running, {e} and was ended")
        if message is None or message.get("phase") != "ran":
            return _failure(candidate, message, "running", Verdict.RUNTIME_ERROR)
        throttling = why_throttled(before, now := bench.sensor.read())
        bench.history.add(message["canary_s"])
        self._disturbed = message["spoilt"]
        conditions = replace(
            _conditions(message),
            throttled=bool(throttling) if now.told else None,
            flushed_cache=bench.policy.flush_cache,
        )
        samples = tuple(float(sample) for sample in message["samples_s"])
        verdict, error = judge(
            Findings(samples, conditions, quiet, message["spoilt"], throttling, usual_s)
        )
        return replace(
            candidate.outcome(verdict, error),
            samples_s=samples,
            run_s=float(message["run_s"]),
            kernel_s=float(message["kernel_s"]),
            conditions=conditions,
        )

    def _bury(self) -> None:
        """End the processes of candidates that are done with.

        Taking down an address space costs milliseconds: nothing is timed meanwhile, and others
        build.
        """
        if self._leaving:
            for candidate in self._leaving:
                candidate.sandbox.close()
            self._leaving.clear()
            kill_strays(known={c.sandbox.pid for c in (*self._building, *self._ready)})


def _conditions(message: dict[str, Any]) -> Conditions:
    readings, load = message["canary_s"], message["load"] or {}
    return replace(
        read_conditions(),
        canary_s=statistics.median(readings) if readings else None,
        attempts=int(message["attempts"]),
        waited_share=float(message["waited_share"]),
        foreign_cores=load.get("foreign_cores"),
        steal_cores=load.get("steal_cores"),
    )


def _build_failure(candidate: _Candidate) -> MeasureOutcome | None:
    try:
        message = candidate.sandbox.recv(time.monotonic() + 1.0)
    except TimeoutError:
        message = None
    if message is None or message.get("phase") == "failed":
        return _failure(candidate, message, "building", Verdict.BUILD_ERROR)
    candidate.build_s = float(message["build_s"])
    candidate.build_cpu_s = float(message["build_cpu_s"])
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
