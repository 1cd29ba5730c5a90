"""Frames between the agent's main process and its workers, and the workers' life and death.

A frame is a length (4 bytes, big-endian) and that many bytes of UTF-8 JSON holding one object;
binary values travel as base64 inside it. The channel is one end of a socketpair that nothing else
in the worker writes to: its stdout and stderr go to a log file, its stdin is ``/dev/null``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FRAME_LIMIT_BYTES = 64 * 2**20
"""A round of the largest workloads takes under 10 MiB; beyond this the peer has lost its mind."""

_HEADER_BYTES = 4
_LOG_LIMIT_BYTES = 4 * 2**20
"""A log that has grown beyond this is begun anew when the next worker starts."""
_LOG_TAIL_BYTES = 2000
_EXIT_GRACE_S = 2.0
"""What a worker gets to end by itself once its channel is closed."""
_PR_SET_PDEATHSIG = 1


class FrameError(Exception):
    """What arrived is no frame, or what should be sent is too large for one."""


class WorkerDied(Exception):  # noqa: N818 (it says what happened; nobody raises it by mistake)
    """The worker is gone.

    ``returncode`` is its exit status, or the negated number of the signal that ended it.
    """

    def __init__(self, module: str, returncode: int, log_tail: str) -> None:
        self.module = module
        self.returncode = returncode
        self.log_tail = log_tail
        super().__init__(
            f"worker {module} {describe_exit(returncode)}; its log ends: {log_tail.strip() or '-'}"
        )


def describe_exit(returncode: int) -> str:
    """Say how a process ended, e.g. ``was killed by SIGSEGV`` or ``exited with status 3``."""
    if returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """Serialise one message.

    Raises:
        FrameError: it is larger than ``FRAME_LIMIT_BYTES``.
    """
    payload = json.dumps(message, separators=(",", ":")).encode()
    if len(payload) > FRAME_LIMIT_BYTES:
        raise FrameError(f"a message of {len(payload)} bytes exceeds {FRAME_LIMIT_BYTES}")
    return len(payload).to_bytes(_HEADER_BYTES, "big") + payload


def _decode_length(header: bytes) -> int:
    length = int.from_bytes(header, "big")
    if length > FRAME_LIMIT_BYTES:
        raise FrameError(f"a frame of {length} bytes exceeds {FRAME_LIMIT_BYTES}")
    return length


def _decode_payload(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except ValueError as e:
        raise FrameError(f"a frame of {len(payload)} bytes is not JSON: {e}") from e
    if not isinstance(message, dict):
        raise FrameError(f"a frame holds a {type(message).__name__} instead of an object")
    return message


class Channel:
    """The worker's blocking end. Not for use by several threads at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def fileno(self) -> int:
        """Return the descriptor, to be watched for input by a selector."""
        return self._socket.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message.

        Raises:
            FrameError: it is too large.
            OSError: the other side is gone.
        """
        self._socket.sendall(encode_frame(message))

    def recv(self) -> dict[str, Any] | None:
        """Wait for one message; ``None`` when the other side is gone.

        Raises:
            FrameError: what arrived is no frame.
        """
        header = self._read_exactly(_HEADER_BYTES)
        if header is None:
            return None
        payload = self._read_exactly(_decode_length(header))
        return None if payload is None else _decode_payload(payload)

    def _read_exactly(self, count: int) -> bytes | None:
        data = bytearray()
        while len(data) < count:
            try:
                part = self._socket.recv(min(count - len(data), 2**20))
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        return bytes(data)


def worker_channel() -> Channel:
    """Take the channel named by ``--fd`` on the command line. A worker calls this first.

    Also points stdin at ``/dev/null``, has crashes leave a stack in the log, and ends this process
    when its parent dies.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True, help="the channel to the agent")
    fd: int = parser.parse_args().fd
    os.set_inheritable(fd, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable()
    die_with_parent()
    return Channel(socket.socket(fileno=fd))


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent (the thread that started it) ends.

    Only Linux offers this; elsewhere a worker notices at its next :meth:`Channel.recv`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class WorkerProcess:
    """The agent's end of a worker; made by :func:`start_worker`."""

    def __init__(
        self,
        module: str,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log_path: Path,
    ) -> None:
        self._module = module
        self._process = process
        self._reader = reader
        self._writer = writer
        self._log_path = log_path
        self._awaited_bytes: int | None = None
        self._killed = False

    @property
    def pid(self) -> int:
        """The worker's process id, which is also its process group's."""
        return self._process.pid

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message.

        Raises:
            FrameError: it is too large.
            WorkerDied: the worker is gone.
        """
        try:
            self._writer.write(encode_frame(message))
            await self._writer.drain()
        except OSError as e:
            raise await self._death() from e

    async def recv(self) -> dict[str, Any]:
        """Wait for one message. It may be cancelled, also in the middle of one, and called again.

        Raises:
            FrameError: what arrived is no frame.
            WorkerDied: the worker is gone.
        """
        try:
            if self._awaited_bytes is None:
                header = await self._reader.readexactly(_HEADER_BYTES)
                self._awaited_bytes = _decode_length(header)
            payload = await self._reader.readexactly(self._awaited_bytes)
        except (asyncio.IncompleteReadError, OSError) as e:
            raise await self._death() from e
        self._awaited_bytes = None
        return _decode_payload(payload)

    async def close(self) -> None:
        """End the worker and everything in its process group. May be called again."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_GRACE_S):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the worker and everything in its process group at once."""
        self._writer.close()
        if not self._killed:
            self._killed = True  # once only: an empty group's number may be given to another
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    async def _death(self) -> WorkerDied:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_GRACE_S):
                await self._process.wait()
        await self.kill()
        returncode = self._process.returncode
        assert returncode is not None
        return WorkerDied(self._module, returncode, _read_tail(self._log_path))


async def start_worker(
    module: str, log_path: Path, env: Mapping[str, str] | None = None
) -> WorkerProcess:
    """Start ``python -m MODULE --fd N`` in a session of its own.

    Args:
        module: what to run; it calls :func:`worker_channel` first.
        log_path: file that its stdout and stderr are appended to.
        env: variables to set beside those of this process.

    Returns:
        The worker, possibly still importing: its first answer shows that it is ready.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    with theirs, _open_log(log_path) as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            "--fd",
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return WorkerProcess(module, process, reader, writer, log_path)


def _open_log(path: Path) -> Any:
    grown = path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES
    return path.open("wb" if grown else "ab")


def _read_tail(path: Path) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
        return log.read().decode(errors="replace")
