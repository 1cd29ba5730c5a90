"""Threads that pause whenever something on this machine is being timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tunefleet.machine_lock import MachineLock

Item = TypeVar("Item")
Result = TypeVar("Result")

_SECTION_S = 0.2
"""How long a busy section should take: whoever wants quiet waits for it to end."""


class PoliteExecutor:
    """Runs functions over many items on a few threads, in short sections of busy time.

    The results depend on the items alone, never on the number of threads or on timing.
    """

    def __init__(self, lock: MachineLock, threads: int) -> None:
        self.threads = max(1, threads)
        self.waited_s = 0.0
        """Seconds spent waiting for others' timed sections so far."""
        self._lock = lock
        self._section_s = 0.0
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="search")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Apply a function to every item and return the results in the items' order.

        Raises:
            Whatever ``function`` raises for the first item that it fails for.
        """
        todo = list(items)
        results: list[Result] = []
        section = 2 * self.threads
        while todo:
            now, todo = todo[:section], todo[section:]
            results += self.run(lambda batch: list(self._pool.map(function, batch)), now)
            if self._section_s > 0:
                wanted = len(now) * _SECTION_S / self._section_s
                section = max(self.threads, min(int(wanted), 4 * section))
        return results

    def run(self, function: Callable[[Item], Result], item: Item) -> Result:
        """Call a function once, in one busy section."""
        asked = time.perf_counter()
        with self._lock.busy():
            begun = time.perf_counter()
            self.waited_s += begun - asked
            result = function(item)
            self._section_s = time.perf_counter() - begun
        return result

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
