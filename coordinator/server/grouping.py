"""Lets calls of the store that come at about the same time share one wait for the disk."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import structlog

from coordinator.server.turns import Turns
from coordinator.state.contract.trials import IngestOutcome, PreparedReport
from coordinator.state.store import Store

T = TypeVar("T")

log = structlog.get_logger()

GROUP_S = 0.04
"""How long a group may work before it is made durable, or as long as that takes if that is longer:
whoever comes too late for one waits for the rest of it and the next."""

GROUP_TRIALS = 256
"""Trials in a group; they take some 30 ms."""


@dataclass
class _Waiting(Generic[T]):
    call: Callable[[], T]
    answer: asyncio.Future[T] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass
class _Report:
    read: Callable[[], PreparedReport]
    trials: int
    now: float
    answer: asyncio.Future[IngestOutcome] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@dataclass(frozen=True)
class _Taken:
    """What a group is made of."""

    calls: Sequence[_Waiting[Any]]
    reports: Sequence[_Report]

    @property
    def answers(self) -> list[asyncio.Future[Any]]:
        """What is waited for."""
        return [*(each.answer for each in self.reports), *(each.answer for each in self.calls)]


_Settled = tuple[asyncio.Future[Any], Any, BaseException | None]
_Read = tuple[_Report, PreparedReport]


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
        self._turns = Turns()
        self._durable_s = 0.0
        """What it took lately to make a group durable, in seconds."""

    @property
    def trials_waiting(self) -> int:
        """Trials of reports that no group has taken yet."""
        with self._lock:
            return sum(report.trials for report in self._reports)

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in the next group; returns once what it did is durable.

        Cancelling this does not keep the call from being run.
        """
        waiting = _Waiting(call)
        with self._lock:
            self._calls.append(waiting)
            self._wake()
        return await waiting.answer

    async def ingest(
        self, read: Callable[[], PreparedReport], trials: int, now: float
    ) -> IngestOutcome:
        """Store a report's trials together with those of others; see ``Store.ingest_reports``.

        Args:
            read: makes the report ready.
            trials: in it.
            now: when it came, in seconds since 1970.
        """
        waiting = _Report(read, trials, now)
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
        while (taken := self._take()) is not None:
            loop = taken.answers[0].get_loop()
            try:
                done = self._group(taken, loop)
            except Exception as e:  # whoever waits must not do so for ever
                log.exception("a group of calls failed")
                done = [(answer, None, e) for answer in taken.answers]
            settled = {id(answer) for answer, _, _ in done}
            with self._lock:
                # What the group had no time for comes before what has come meanwhile.
                left = [each for each in taken.calls if id(each.answer) not in settled]
                self._calls.extendleft(reversed(left))
            self._turns.hand_over(loop, partial(_answer, done))

    def _take(self) -> _Taken | None:
        with self._lock:
            reports: list[_Report] = []
            trials = 0
            while self._reports and (not reports or trials < GROUP_TRIALS):
                reports.append(self._reports.popleft())
                trials += reports[-1].trials
            taken = _Taken(tuple(self._calls), reports)
            self._calls.clear()
            if not taken.calls and not reports:
                self._working = False
                return None
        return taken

    def _group(self, taken: _Taken, loop: asyncio.AbstractEventLoop) -> list[_Settled]:
        """Do a group's work; returns what came of its reports and of the calls it had time for."""
        begun = 0
        with self._turns.work(loop) as let_go:
            readable, unreadable = _read(taken.reports)
            try:
                with self._store.group():
                    done = [*unreadable, *self._ingest(readable)]
                    until = time.monotonic() + max(GROUP_S, self._durable_s)
                    for waiting in taken.calls:
                        if begun and time.monotonic() > until:
                            break
                        begun += 1
                        done.append(_settle(waiting.answer, waiting.call))
                    worked = time.monotonic()
                    let_go()
                self._durable_s = time.monotonic() - worked
            except Exception:  # one of them has undone it: who it was, shows by itself
                let_go()
                alone = [_settle(r.answer, partial(self._ingest_one, r, p)) for r, p in readable]
                calls = taken.calls[: max(1, begun)]
                return [*unreadable, *alone, *(_settle(each.answer, each.call) for each in calls)]
        return done

    def _ingest(self, readable: Sequence[_Read]) -> list[_Settled]:
        if not readable:
            return []
        now = readable[-1][0].now
        outcomes = self._store.ingest_reports([report for _, report in readable], now)
        return [
            (r.answer, outcome, None) for (r, _), outcome in zip(readable, outcomes, strict=True)
        ]

    def _ingest_one(self, waiting: _Report, report: PreparedReport) -> IngestOutcome:
        return self._store.ingest_reports([report], waiting.now)[0]


def _read(reports: Sequence[_Report]) -> tuple[list[_Read], list[_Settled]]:
    """Make reports ready; returns those, and what came of the ones that could not be."""
    readable: list[_Read] = []
    failed: list[_Settled] = []
    for report in reports:
        try:
            readable.append((report, report.read()))
        except Exception as e:
            failed.append((report.answer, None, e))
    return readable, failed


def _answer(done: Sequence[_Settled]) -> None:
    for answer, result, error in done:
        if answer.done():  # its caller has gone
            continue
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)


def _settle(answer: asyncio.Future[Any], call: Callable[[], Any]) -> _Settled:
    try:
        return answer, call(), None
    except Exception as e:
        # Within a group one that undid more is raised again at the group's end.
        return answer, None, e
