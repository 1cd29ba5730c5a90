from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from processes import eventually, is_running

from agent.frames import (
    FRAME_LIMIT_BYTES,
    Channel,
    FrameError,
    WorkerDied,
    WorkerProcess,
    encode_frame,
    start_worker,
)

_WORKER_ENV = {"PYTHONPATH": str(Path(__file__).parent)}


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "worker.log"


@pytest_asyncio.fixture
async def worker(log_path: Path) -> AsyncIterator[WorkerProcess]:
    started = await start_worker("frames_test_worker", log_path, _WORKER_ENV)
    yield started
    await started.close()


def test_message_survives_the_channel(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    Channel(peer).send({"text": "naïve ∞", "values": [1, 2.5, None]})
    assert channel.recv() == {"text": "naïve ∞", "values": [1, 2.5, None]}


def test_recv_tells_end_of_channel(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.close()
    assert channel.recv() is None


def test_recv_takes_a_cut_off_frame_for_the_end(pair: tuple[Channel, socket.socket]) -> None:
    channel, peer = pair
    peer.sendall(encode_frame({"op": "ping"})[:-1])
    peer.close()
    assert channel.recv() is None


@pytest.mark.parametrize(
    "data",
    [
        (FRAME_LIMIT_BYTES + 1).to_bytes(4, "big"),
        b"\0\0\0\3{]}",
        b"\0\0\0\2[]",
        b"\0\0\0\1\xff",
    ],
    ids=["too large", "not JSON", "not an object", "not UTF-8"],
)
def test_recv_refuses_what_is_no_frame(pair: tuple[Channel, socket.socket], data: bytes) -> None:
    channel, peer = pair
    peer.sendall(data)
    with pytest.raises(FrameError):
        channel.recv()


def test_too_large_a_message_is_refused() -> None:
    with pytest.raises(FrameError):
        encode_frame({"text": "x" * FRAME_LIMIT_BYTES})


async def test_worker_answers(worker: WorkerProcess) -> None:
    message = {"op": "echo", "text": "x" * 5_000_000}
    await worker.send(message)
    assert await worker.recv() == message


async def test_what_a_worker_prints_goes_to_its_log(worker: WorkerProcess, log_path: Path) -> None:
    for op in ("print", "complain"):
        await worker.send({"op": op, "text": f"a {op}\n"})
        assert (await worker.recv())["op"] == op
    assert log_path.read_text() == "a print\na complain\n"


async def test_worker_has_no_input(worker: WorkerProcess) -> None:
    await worker.send({"op": "read_stdin"})
    assert (await worker.recv())["text"] == ""


async def test_exit_is_reported_with_the_end_of_the_log(worker: WorkerProcess) -> None:
    await worker.send({"op": "complain", "text": "it hurts"})
    await worker.recv()
    await worker.send({"op": "exit", "status": 3})
    with pytest.raises(WorkerDied, match=r"status 3.*it hurts") as death:
        await worker.recv()
    assert death.value.returncode == 3


async def test_signal_is_reported(worker: WorkerProcess) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL") as death:
        await worker.recv()
    assert death.value.returncode == -signal.SIGKILL


async def test_sending_to_a_dead_worker_is_reported(worker: WorkerProcess) -> None:
    os.kill(worker.pid, signal.SIGKILL)
    await eventually(lambda: not is_running(worker.pid))
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await worker.send({"op": "echo", "text": "x" * 5_000_000})


async def test_recv_cancelled_amid_a_frame_goes_on_with_it(worker: WorkerProcess) -> None:
    await worker.send({"op": "dribble"})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.recv(), 1.0)
    await worker.send({"op": "go on"})
    assert await worker.recv() == {"op": "dribbled"}


async def test_closing_ends_what_the_worker_started(worker: WorkerProcess) -> None:
    await worker.send({"op": "spawn"})
    pid = (await worker.recv())["pid"]
    await worker.close()
    await eventually(lambda: not is_running(pid))


async def test_closing_ends_a_deaf_worker(worker: WorkerProcess) -> None:
    await worker.send({"op": "spin"})
    await worker.recv()
    await worker.close()
    assert not is_running(worker.pid)


async def test_deaf_worker_dies_with_its_parent(log_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "frames_test_parent",
        str(log_path),
        env={**os.environ, **_WORKER_ENV},
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_running(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not is_running(pid))
