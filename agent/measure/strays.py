"""Finding and ending what candidates have started and left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

_ROUNDS = 200
"""Processes that multiply are found anew in each round; stopped ones cannot, so few are needed."""


def count_tasks() -> int:
    """Return the number of processes and threads on this machine; 0 where it does not tell."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    except (OSError, IndexError, ValueError):
        return 0


def descendants(pid: int, leave: frozenset[int] = frozenset()) -> list[int]:
    """Return the processes that one has started, and those that they have, dead ones included.

    Args:
        pid: whose.
        leave: processes to leave out, with all that they have started.
    """
    found: list[int] = []
    todo = [pid]
    while todo:
        children = [child for child in _children(todo.pop()) if child not in leave]
        found += children
        todo += children
    return found


def kill_strays(known: set[int]) -> int:
    """Kill and reap everything this process has started but the known; return how many there were.

    Orphans must come to this process (see :func:`agent.measure.sandbox.become_subreaper`).
    """
    me, leave = os.getpid(), frozenset(known)
    if not any(child not in leave for child in _children(me)):
        return 0
    stopped: set[int] = set()
    # What is stopped starts nothing more; killing at once would make room for others to fork.
    for _ in range(_ROUNDS):
        fresh = set(descendants(me, leave)) - stopped
        if not fresh:
            break
        for pid in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        stopped |= fresh
    for _ in range(_ROUNDS):
        strays = descendants(me, leave)
        if not strays:
            break
        for pid in strays:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in strays:
            # Those of others become ours when their parents are gone.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        stopped.update(strays)
    return len(stopped)


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task")
    try:
        return [
            int(child)
            for thread in threads.iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return _children_slowly(pid)


def _children_slowly(pid: int) -> list[int]:
    """Find children where the kernel keeps no list of them, or the process has just ended."""
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.NoSuchProcess:
        return []
