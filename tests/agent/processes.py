"""Watching processes from tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psutil


def is_running(pid: int) -> bool:
    """Tell whether a process still runs; one that ended and was not reaped yet does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def eventually(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it does not within the time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)
