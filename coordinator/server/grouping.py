"""Lets calls of the store that come at about the same time share one wait for the disk."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from coordinator.state.contract.trials import IngestOutcome, PreparedReport
from coordinator.state.store import Store
from tunefleet.errors import TuneFleetError

T = TypeVar("T")

GROUP_S = 0.02
"""How long a group may work before it is made durable, or as long as that takes if that is longer:
whoever comes too late for one waits for the rest of it and the next."""

GROUP_TRIALS = 256
"""Trials in a group; they take some 20 ms."""


@dataclass
class _Waiting(Generic[T]):
    call: Callable[[], T]
    answer: asyncio.Future[T] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass
class _Report:
    report: PreparedReport
    now: float
    answer: asyncio.Future[IngestOutcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


_Settled = tuple[asyncio.Future[Any], Any, BaseException | None]


class GroupedCalls:
    """Runs calls that write, one after the other, in groups that become durable together.

    A group is what has come while the one before was worked on: with nothing else to do, a call
    begins at once and waits for nobody. A call that fails does not disturb the others. Calls must
    bear being repeated, what they changed in the store having been undone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._calls: deque[_Waiting[Any]] = deque()
        self._reports: deque[_Report] = deque()
        self._working = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._durable_s = 0.0
        """What it took lately to make a group durable, in seconds."""

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in the next group; returns once what it did is durable.

        Cancelling this does not keep the call from being run.
        """
        waiting = _Waiting(call)
        with self._lock:
            self._calls.append(waiting)
            self._wake()
        return await waiting.answer

    async def ingest(self, report: PreparedReport, now: float) -> IngestOutcome:
        """Store a report's trials together with those of others; see ``Store.ingest_reports``."""
        waiting = _Report(report, now)
        with self._lock:
            self._reports.append(waiting)
            self._wake()
        return await waiting.answer

    def _wake(self) -> None:
        if not self._working:
            self._working = True
            self._thread.submit(self._work)

    def _work(self) -> None:
        # One group after the other without the event loop's doing: it has others to attend to, and
        # the store would be idle until its turn comes.
        while True:
            with self._lock:
                calls, reports = list(self._calls), self._take_reports()
                self._calls.clear()
                if not calls and not reports:
                    self._working = False
                    return
            done = self._group(calls, reports)
            with self._lock:
                # What the group had no time for comes before what has come meanwhile.
                self._calls.extendleft(reversed(calls[len(done) - len(reports) :]))
            with suppress(RuntimeError):  # the loop was closed: nobody waits any more
                done[0][0].get_loop().call_soon_threadsafe(_answer, done)

    def _take_reports(self) -> list[_Report]:
        taken: list[_Report] = []
        trials = 0
        while self._reports and (not taken or trials < GROUP_TRIALS):
            taken.append(self._reports.popleft())
            trials += len(taken[-1].report.trials)
        return taken

    def _group(self, calls: Sequence[_Waiting[Any]], reports: list[_Report]) -> list[_Settled]:
        """Do a group's work; returns what came of its reports and of the calls it had time for."""
        begun = 0
        try:
            with self._store.group():
                done = self._ingest(reports)
                until = time.monotonic() + max(GROUP_S, self._durable_s)
                for waiting in calls:
                    if begun and time.monotonic() > until:
                        break
                    begun += 1
                    done.append(_settle(waiting))
                worked = time.monotonic()
            self._durable_s = time.monotonic() - worked
        except Exception:  # one of them has undone it: who it was, shows by itself
            alone = [_settle(_Waiting(self._ingesting(each), each.answer)) for each in reports]
            return alone + [_settle(waiting) for waiting in calls[: max(1, begun)]]
        return done

    def _ingest(self, reports: Sequence[_Report]) -> list[_Settled]:
        if not reports:
            return []
        outcomes = self._store.ingest_reports([r.report for r in reports], reports[-1].now)
        return [(r.answer, outcome, None) for r, outcome in zip(reports, outcomes, strict=True)]

    def _ingesting(self, waiting: _Report) -> Callable[[], IngestOutcome]:
        return lambda: self._store.ingest_reports([waiting.report], waiting.now)[0]


def _answer(done: Sequence[_Settled]) -> None:
    for answer, result, error in done:
        if answer.done():  # its caller has gone
            continue
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


def _settle(waiting: _Waiting[Any]) -> _Settled:
    try:
        return waiting.answer, waiting.call(), None
    except TuneFleetError as e:
        return waiting.answer, None, e
    except Exception as e:
        # Within a group it is raised again at the group's end, and nobody sees this one.
        return waiting.answer, None, e
