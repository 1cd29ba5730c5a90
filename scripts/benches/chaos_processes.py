"""The processes of a fleet that is mistreated: started, found by role, killed, started again."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

CLOCK_VARIABLE = "TUNEFLEET_CHAOS_CLOCK_OFFSET_S"
"""Read by ``chaos_site``."""
_SITE = Path(__file__).parent / "chaos_site"
_ROOT = Path(__file__).parents[2]
_PR_SET_CHILD_SUBREAPER = 36
_GRACE_S = 60.0
"""For a coordinator or an agent to end by itself once it was asked to."""


@dataclass
class Member:
    """A coordinator or an agent, in whatever incarnation."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str]
    clock_offset_s: float = 0.0
    starts: int = 0
    expected_end: bool = False
    """We have killed it, or asked it to end."""
    surprises: list[str] = field(default_factory=list)
    """How it ended without our doing, with the end of its log."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, or ``None`` while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches the bench alone."""
        self.starts += 1
        self.expected_end = False
        command = [part.replace("{starts}", str(self.starts)) for part in self.command]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env=self._environment(),
            )

    def ended(self) -> bool:
        """Note whether it has ended since it was started; once true, it is to be started again."""
        if self._process is None:
            return True
        code = self._process.poll()
        if code is None:
            return False
        if not self.expected_end:
            self.surprises.append(f"{self.name} ended with code {code}: {tail(self.log)}")
        self._process = None
        return True

    def kill(self) -> None:
        """End it as a power cut would."""
        self.expected_end = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """Ask it to end, and see to it."""
        self.expected_end = True
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            self.surprises.append(f"{self.name} did not end when asked to: {tail(self.log)}")
            self.kill()
        self._process = None

    def _environment(self) -> dict[str, str]:
        path = [str(_SITE), str(_ROOT / "proto"), str(_ROOT), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            **self.env,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            CLOCK_VARIABLE: str(self.clock_offset_s),
        }


def descendants(pids: Iterable[int | None]) -> list[psutil.Process]:
    """Return everything that some processes have started and that still runs, oldest first."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        if pid is None:
            continue
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(pid).children(recursive=True):
                if child.status() != psutil.STATUS_ZOMBIE:
                    found[child.pid] = child
    return sorted(found.values(), key=_age)


def _age(process: psutil.Process) -> tuple[float, int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.create_time(), process.pid
    return 0.0, process.pid


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none gets away."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(known: Iterable[int | None]) -> list[psutil.Process]:
    """Bury adopted processes that have ended.

    Args:
        known: our own children, which their :class:`Member` waits for.

    Returns:
        Adopted ones that live on.
    """
    ours = set(known)
    alive: list[psutil.Process] = []
    for child in psutil.Process().children():
        if child.pid in ours:
            continue
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child.pid, os.WNOHANG)[0] == 0:
                alive.append(child)
    return alive


def kill_everything(patience_s: float = 10.0) -> int:
    """Kill all descendants of this process; returns how many there were at first."""
    deadline = time.monotonic() + patience_s
    first = len(descendants([os.getpid()]))
    while time.monotonic() < deadline:
        for process in descendants([os.getpid()]):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        if not reap_orphans([]):
            break
        time.sleep(0.05)
    return first


def tail(log: Path, characters: int = 1500) -> str:
    """Return the end of a log."""
    if not log.exists():
        return "(no log)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - characters))
        return file.read().decode(errors="replace").strip()
