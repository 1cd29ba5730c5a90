"""The agent's side of the search worker. Imports neither TVM nor NumPy."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from agent.frames import WorkerDied, WorkerProcess, start_worker
from agent.search.messages import (
    ErrorKind,
    FeaturizeRequest,
    Proposal,
    Request,
    SearchError,
    featurize_to_message,
    featurized_from_message,
    proposal_from_message,
    request_to_message,
)
from tunefleet.leases import FeaturizedTrace

log = structlog.get_logger()

DEFAULT_TIMEOUT_S = 300.0
"""A search takes seconds; a small board that must first import TVM may take a minute or two."""
_ATTEMPTS = 2
"""A worker killed from outside, for memory say, deserves another try; a bug will show again."""


class Searcher:
    """Starts the worker when there is something to search for, and again if it died."""

    def __init__(self, log_path: Path, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Start nothing yet.

        Args:
            log_path: file for the worker's stdout and stderr.
            timeout_s: longest wait for one proposal, starting the worker included.
        """
        self._log_path = log_path
        self._timeout_s = timeout_s
        self._worker: WorkerProcess | None = None
        self._turn = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The worker's process id, or ``None`` while there is none."""
        return self._worker.pid if self._worker else None

    async def warm_up(self) -> None:
        """Start the worker, if there is none; it goes on importing by itself.

        Raises:
            OSError: no process can be started.
        """
        async with self._turn:
            await self._start()

    async def propose(self, request: Request) -> Proposal:
        """Search for programs to measure. Concurrent calls take turns.

        Raises:
            SearchError: nothing was found, for the reason of its kind.
        """
        return proposal_from_message(await self._answer(request_to_message(request)))

    async def featurize(self, request: FeaturizeRequest) -> tuple[FeaturizedTrace, ...]:
        """Compute features of known schedules. Concurrent calls take turns.

        Raises:
            SearchError: the workload cannot be used, or the worker died of it.
        """
        return featurized_from_message(await self._answer(featurize_to_message(request)))

    async def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        async with self._turn:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    async with asyncio.timeout(self._timeout_s):
                        return await self._ask(message)
                except WorkerDied as e:
                    log.warning("search worker died", attempt=attempt, error=str(e))
                    await self._drop()
                    if attempt == _ATTEMPTS:
                        raise SearchError(ErrorKind.CRASHED, str(e)) from e
                except TimeoutError as e:
                    await self._drop()
                    late = f"no answer within {self._timeout_s:g} s"
                    raise SearchError(ErrorKind.TIMEOUT, late) from e
                except BaseException:
                    # Cancelled, or the channel broke: an answer to come must meet no later request.
                    await self._drop()
                    raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """End the worker, and with it the memory it holds. A later call starts another."""
        async with self._turn:
            await self._drop()

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        worker = await self._start()
        await worker.send(message)
        return await worker.recv()

    async def _start(self) -> WorkerProcess:
        if self._worker is None:
            self._worker = await start_worker("agent.search.worker", self._log_path)
        return self._worker

    async def _drop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.kill()
