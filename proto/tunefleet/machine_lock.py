"""Quiet on a machine: nothing of ours computes while something of ours is being timed.

Every TuneFleet process on a machine, whichever side it belongs to, brackets heavy work in
:meth:`MachineLock.busy` and timed sections in :meth:`MachineLock.quiet`. Many may be busy at once;
quiet is exclusive. The kernel drops the locks of a process that dies.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.002
"""How often a waiter looks again: short beside a candidate's 100 ms, long beside a syscall."""


def default_lock_dir() -> Path:
    """Return the folder all TuneFleet processes of this machine and user share."""
    chosen = os.environ.get("TUNEFLEET_LOCK_DIR")
    return Path(chosen) if chosen else Path(tempfile.gettempdir()) / f"tunefleet-{os.getuid()}"


class MachineLock:
    """A readers-writer lock between processes in which a waiting writer is never starved.

    A process takes the turnstile before the lock itself and a writer keeps it while waiting, so
    that newcomers queue behind the writer.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or default_lock_dir()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Compute something heavy; wait first for whoever is timing. Keep sections under 1 s."""
        with self._hold(fcntl.LOCK_SH, timeout_s=None):
            yield

    @contextmanager
    def quiet(self, timeout_s: float = 30.0) -> Iterator[bool]:
        """Time something; yields whether everything of ours is quiet.

        After ``timeout_s`` it goes on all the same and yields False: a stopped process that still
        holds the lock must not end all measuring.
        """
        with self._hold(fcntl.LOCK_EX, timeout_s) as held:
            yield held

    @contextmanager
    def _hold(self, mode: int, timeout_s: float | None) -> Iterator[bool]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        turnstile = os.open(self._folder / "turnstile", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            main = os.open(self._folder / "quiet", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                held = _acquire(turnstile, fcntl.LOCK_EX, deadline)
                held = _acquire(main, mode, deadline) and held
                fcntl.flock(turnstile, fcntl.LOCK_UN)
                yield held
            finally:
                # Closing alone would leave the lock to a child that was forked meanwhile.
                fcntl.flock(main, fcntl.LOCK_UN)
                os.close(main)
        finally:
            os.close(turnstile)


def _acquire(fd: int, mode: int, deadline: float | None) -> bool:
    while True:
        try:
            fcntl.flock(fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        else:
            return True
