"""A process in which a candidate may do its worst: forked, limited, ended with all it started."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import resource
import select
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.frames import Channel, FrameError, describe_exit, die_with_parent
from agent.measure.strays import count_tasks, descendants
from tunefleet.leases import MeasurePolicy
from tunefleet.trials import Verdict

_OUTPUT_LIMIT_BYTES = 2**16
"""What a candidate may write to stdout and stderr, or to any file; writing on fails."""
_PR_SET_CHILD_SUBREAPER = 36
_EXIT_GRACE_S = 1.0
"""What a child gets to end after its channel has; writing out a crash takes some time."""
_BIRTH_S = 5.0
"""For how long a child is waited for to be bound to this process; it takes a millisecond."""
_PROCESS_LIMIT = 64
"""Processes a candidate may start, beside a thread for each core. No kernel needs any."""
_WATCH_S = 0.1
"""How often running candidates are looked after: reading one small file takes 20 microseconds."""
# What allocators print or raise when the address space is used up: libstdc++, LLVM, TVM, NumPy.
_MEMORY_MESSAGES = ("bad_alloc", "out of memory", "cannot allocate memory", "unable to allocate")


def become_subreaper() -> None:
    """Inherit the orphans of our children, so that none of them can escape being killed."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def mentions_memory(text: str) -> bool:
    """Tell whether an error message says that memory ran out."""
    lowered = text.lower()
    return any(message in lowered for message in _MEMORY_MESSAGES)


class TooManyProcessesError(Exception):
    """A candidate multiplies."""

    def __init__(self, started: int) -> None:
        super().__init__(f"the candidate started {started} processes")


class Sandbox:
    """A forked child in a session of its own, joined to this process by a channel.

    The child runs ``body`` with nothing but its end of the channel open, and dies with its parent.
    """

    def __init__(
        self, body: Callable[[Channel], None], policy: MeasurePolicy, threads: int
    ) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the sandbox)
        self._oom_kills = _oom_kills()
        self._status: int | None = None
        self._process_limit = _PROCESS_LIMIT + threads
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(body, theirs.detach(), self._output.fileno(), policy, threads, parent=parent)
        theirs.close()
        # One that is stopped before it is bound to us, and we killed then, would stay for ever.
        if select.select([ours], [], [], _BIRTH_S)[0]:
            ours.recv(1)
        else:
            os.kill(self.pid, signal.SIGKILL)
        self._socket = ours
        self._channel = Channel(ours)

    def fileno(self) -> int:
        """Return the descriptor to be watched for messages."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; a child that is gone shows at the next :meth:`recv`."""
        with contextlib.suppress(OSError):
            self._channel.send(message)

    def recv(self, deadline: float) -> dict[str, Any] | None:
        """Wait for a message.

        Args:
            deadline: on the monotonic clock.

        Returns:
            The message, or ``None`` if the child is gone or talks nonsense.

        Raises:
            TimeoutError: the deadline has passed.
            TooManyProcessesError: there are more processes than a candidate may start.
        """
        tasks = count_tasks()
        while not select.select([self._socket], [], [], _WATCH_S)[0]:
            if time.monotonic() > deadline:
                raise TimeoutError
            if count_tasks() > tasks + self._process_limit:
                started = len(descendants(os.getpid()))
                if started > self._process_limit:
                    raise TooManyProcessesError(started)
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            return self._channel.recv()
        except FrameError:
            return None

    def pause(self) -> None:
        """Stop the child for a while."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused child go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the child and its process group. May be called again."""
        if self._status is None:
            self._signal(signal.SIGKILL)
            _, self._status = os.waitpid(self.pid, 0)

    def autopsy(self) -> tuple[Verdict, str]:
        """Tell how a child ended whose channel has.

        Returns:
            ``OUT_OF_MEMORY``, ``TIMEOUT`` (of its CPU time) or ``CRASHED``, and an explanation.
        """
        if not self._ends_within(_EXIT_GRACE_S):
            self.kill()
            return Verdict.CRASHED, "the candidate closed its channel and lived on"
        assert self._status is not None
        returncode = os.waitstatus_to_exitcode(self._status)
        output = self._read_output()
        death = f"the candidate {describe_exit(returncode)}"
        if returncode == -signal.SIGXCPU:
            return Verdict.TIMEOUT, f"{death}: its CPU time is used up"
        if returncode == -signal.SIGKILL and _oom_kills() != self._oom_kills:
            return Verdict.OUT_OF_MEMORY, f"{death}: the machine's memory is used up"
        verdict = Verdict.OUT_OF_MEMORY if mentions_memory(output) else Verdict.CRASHED
        return verdict, f"{death}; it wrote: {output}" if output else death

    def close(self) -> None:
        """End the child and free what is held for it."""
        self.kill()
        self._socket.close()
        self._output.close()

    def _signal(self, number: int) -> None:
        if self._status is not None:
            return
        # As long as it is not reaped its number is its own. It may not have made its group yet.
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                send(self.pid, number)

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
                # Others of its group outlive it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                return True
            time.sleep(0.001)
        return False

    def _read_output(self) -> str:
        self._output.seek(0)
        return self._output.read(_OUTPUT_LIMIT_BYTES).decode(errors="replace").strip()


def _be_child(
    body: Callable[[Channel], None],
    fd: int,
    output: int,
    policy: MeasurePolicy,
    threads: int,
    *,
    parent: int,
) -> None:
    """Run in the child; never returns."""
    status = 1
    try:
        os.setsid()
        _bind(parent, fd)
        faulthandler.disable()
        os.dup2(output, 1)
        os.dup2(output, 2)
        # The parent's channel, its locks and its other children are none of our business.
        os.closerange(3, fd)
        os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
        _limit(policy, threads)
        body(Channel(socket.socket(fileno=fd)))
        status = 0
    except BaseException as e:  # nothing may unwind into the parent's frames
        os.write(2, f"{type(e).__name__}: {e}".encode())
    finally:
        os._exit(status)


def _bind(parent: int, fd: int) -> None:
    """Die with the parent from now on, and tell it so. Raises ProcessLookupError if it is gone."""
    die_with_parent()
    if os.getppid() != parent:
        raise ProcessLookupError("the worker has ended already")
    os.write(fd, b"!")


def _limit(policy: MeasurePolicy, threads: int) -> None:
    # The machine's memory is scarcer than its agent's patience: if some must go, let it be this.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    address_space = pages * resource.getpagesize() + policy.memory_limit_bytes
    cpu_s = int(policy.build_timeout_s + policy.run_timeout_s * threads) + 2
    _set_limit(resource.RLIMIT_AS, address_space)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_FSIZE, _OUTPUT_LIMIT_BYTES)
    _set_limit(resource.RLIMIT_CPU, cpu_s, grace=2)


def _set_limit(kind: int, soft: int, grace: int = 0) -> None:
    hard = resource.getrlimit(kind)[1]
    limits = [soft, soft + grace]
    if hard != resource.RLIM_INFINITY:
        limits = [min(limit, hard) for limit in limits]
    resource.setrlimit(kind, (limits[0], limits[1]))


def _oom_kills() -> int | None:
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
