"""Lets one thread and the event loop work in turns.

Python runs one of them at a time anyway. But SQLite's driver lets go of that right with every row,
and gets it back only when the other one has had enough: a thread that reads and writes beside a
busy event loop takes five to ten times as long as alone, and nothing is gained by it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LONGEST_REST_S = 0.2
"""For longer neither waits: a statement may take seconds, and so may what the event loop does."""


class Turns:
    """For one thread at a time, and one event loop."""

    def __init__(self) -> None:
        self._working = threading.Lock()
        self._rested = threading.Event()

    @contextmanager
    def work(self, loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[], None]]:
        """Have the event loop rest.

        Yields:
            What lets it go on before the end, to be called while the thread waits for something.
        """
        held = True

        def let_go() -> None:
            nonlocal held
            if held:
                held = False
                self._working.release()

        self._working.acquire()
        try:
            with suppress(RuntimeError):  # it was closed
                loop.call_soon_threadsafe(self._rest)
            yield let_go
        finally:
            let_go()

    def hand_over(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        """Have the event loop call something, and go on once it has done what came of that."""
        self._rested.clear()

        def in_loop() -> None:
            try:
                call()
            finally:
                loop.call_soon(self._rested.set)

        with suppress(RuntimeError):  # it was closed: nobody waits any more
            loop.call_soon_threadsafe(in_loop)
            self._rested.wait(LONGEST_REST_S)

    def _rest(self) -> None:
        if self._working.acquire(timeout=LONGEST_REST_S):
            self._working.release()
