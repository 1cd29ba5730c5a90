"""Measuring from the agent's main process, which has no TVM: a worker does it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import structlog

from agent.frames import FrameError, WorkerDied, WorkerProcess, start_worker
from agent.measure.outcome import MeasureOutcome, better
from tunefleet.leases import MeasurePolicy
from tunefleet.trials import Verdict

_WORKER_MODULE = "agent.measure.worker"
_START_LIMIT_S = 300.0
"""Importing TVM takes 6 s here and some minutes on the slowest boards."""
_SILENCE_MARGIN_S = 60.0
"""Silence of the worker beyond the limits it enforces itself; it also waits for others' timing."""
_IDLE_STARTS_LIMIT = 2
"""A worker that dies so often in a row without having begun a candidate will never work."""

_log = structlog.get_logger()


class Measurer:
    """Measures candidates in a worker, and replaces the worker when it dies or hangs.

    The worker starts with the first measurement. One measurement runs at a time; others wait.
    """

    def __init__(
        self,
        log_dir: Path,
        *,
        threads: int,
        quiet_timeout_s: float = 30.0,
        silence_margin_s: float = _SILENCE_MARGIN_S,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            log_dir: folder for the worker's log and for what it remembers of this machine.
            threads: candidates to build at a time.
            quiet_timeout_s: how long to wait for a quiet machine before measuring all the same.
            silence_margin_s: silence beyond the policy's limits after which a worker is hung.
            env: variables to set for the worker beside those of this process.
        """
        self._log_path = log_dir / "measure.log"
        self._build_workers = threads
        self._quiet_timeout_s = quiet_timeout_s
        self._silence_margin_s = silence_margin_s
        # Libraries' own thread pools would make forking the worker unsafe.
        self._env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})}
        self._worker: WorkerProcess | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The worker's process id, or ``None`` if there is none."""
        return None if self._worker is None else self._worker.pid

    @property
    def rss(self) -> int | None:
        """The worker's resident memory in bytes, or ``None`` if there is none."""
        if self._worker is None:
            return None
        try:
            return int(psutil.Process(self._worker.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the worker, which frees its memory; the next measurement starts another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    async def warm_up(self) -> None:
        """Start the worker, if there is none, and wait until it is ready.

        Raises:
            WorkerDied: it cannot be started.
            TimeoutError: it does not get ready.
        """
        async with self._turn:
            await self._started()

    async def measure(
        self,
        workload_path: Path,
        target: str,
        candidates: Sequence[tuple[str, str]],
        policy: MeasurePolicy,
        best_s: float | None = None,
    ) -> AsyncGenerator[MeasureOutcome, None]:
        """Measure candidates of one workload.

        A caller that stops iterating early closes the iterator (``contextlib.aclosing``); what was
        being measured is then ended together with the worker.

        Args:
            workload_path: file with the IRModule as TVM's JSON.
            target: canonical target.
            candidates: name and trace of each; names are unique.
            policy: how each is timed and bounded.
            best_s: the best latency known of this workload on this device, in seconds; better
                ones that are measured on the way take its place.

        Yields:
            One outcome for each candidate, in the order in which they end. ``LOST`` are those
            whose worker ended or hung while it was at them; measuring goes on with the rest.

        Raises:
            WorkerDied: no worker can be started, or it dies without having begun a candidate.
            TimeoutError: the same, by falling silent.
        """
        async with self._turn:
            waiting = dict(candidates)
            idle_starts = 0
            while waiting:
                batch = _Batch(waiting)
                request = self._request(workload_path, target, waiting, policy, best_s)
                before = len(waiting)
                loss = ""
                try:
                    async with aclosing(self._measure_once(request, batch, policy)) as outcomes:
                        async for outcome in outcomes:
                            best_s = better(best_s, outcome)
                            yield outcome
                except (WorkerDied, TimeoutError, FrameError) as e:
                    done = before - len(waiting) + len(batch.in_flight)
                    idle_starts = 0 if done else idle_starts + 1
                    if idle_starts >= _IDLE_STARTS_LIMIT:
                        raise
                    loss = _describe_loss(e)
                    _log.warning("measuring worker lost", error=loss, at=sorted(batch.in_flight))
                # Not within the handler: a traceback would keep an abandoned iterator alive.
                for name in sorted(batch.in_flight):
                    del waiting[name]
                    yield MeasureOutcome(name, Verdict.LOST, error=loss)

    def _request(
        self,
        workload_path: Path,
        target: str,
        waiting: Mapping[str, str],
        policy: MeasurePolicy,
        best_s: float | None,
    ) -> dict[str, Any]:
        return {
            "op": "measure",
            "workload_path": str(workload_path),
            "target": target,
            "policy": asdict(policy),
            "best_s": best_s,
            "state_dir": str(self._log_path.parent),
            "build_workers": self._build_workers,
            "quiet_timeout_s": self._quiet_timeout_s,
            "batch": [{"candidate": name, "trace": trace} for name, trace in waiting.items()],
        }

    async def _measure_once(
        self, request: dict[str, Any], batch: _Batch, policy: MeasurePolicy
    ) -> AsyncGenerator[MeasureOutcome, None]:
        silence_s = (
            policy.build_timeout_s
            + policy.run_timeout_s
            + self._quiet_timeout_s
            + self._silence_margin_s
        )
        worker = await self._started()
        ended = False
        try:
            async with asyncio.timeout(silence_s):
                await worker.send(request)
            while True:
                async with asyncio.timeout(silence_s):
                    event = await worker.recv()
                if event["event"] == "done":
                    if batch.incomplete:
                        raise FrameError("the worker ended a batch without all results")
                    break
                outcome = batch.take(event)
                if outcome is not None:
                    yield outcome
            ended = True
        finally:
            if not ended:
                # It died, hung, or is still at work nobody waits for any more.
                self._worker = None
                await worker.kill()

    async def _started(self) -> WorkerProcess:
        if self._worker is None:
            worker = await start_worker(_WORKER_MODULE, self._log_path, self._env)
            try:
                await worker.send({"op": "ping"})
                async with asyncio.timeout(_START_LIMIT_S):
                    await worker.recv()
            except BaseException:
                await worker.kill()
                raise
            self._worker = worker
        return self._worker


class _Batch:
    """Which candidates still wait, and which the worker is at."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting
        self._building: set[str] = set()
        self._running: set[str] = set()

    @property
    def incomplete(self) -> bool:
        """Whether some have no outcome yet."""
        return bool(self._waiting)

    @property
    def in_flight(self) -> set[str]:
        """Those to blame or to pity: the one running, or else those being built."""
        return (self._running or self._building) & self._waiting.keys()

    def take(self, event: dict[str, Any]) -> MeasureOutcome | None:
        if event["event"] == "phase":
            names = set(event["candidates"])
            if event["phase"] == "build":
                self._building |= names
            else:
                self._building -= names
                self._running = names if event["phase"] == "run" else set()
            return None
        outcome = MeasureOutcome.from_message(event)
        self._waiting.pop(outcome.candidate, None)
        self._running.discard(outcome.candidate)
        self._building.discard(outcome.candidate)
        return outcome


def _describe_loss(error: Exception) -> str:
    if isinstance(error, WorkerDied):
        return f"the measuring worker ended meanwhile: {error}"
    if isinstance(error, TimeoutError):
        return "the measuring worker fell silent meanwhile and was ended"
    return f"the measuring worker talked nonsense meanwhile and was ended: {error}"
