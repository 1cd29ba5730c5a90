"""The command, as a person or a service manager runs it: in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from in_memory_coordinator import InMemoryCoordinator
from processes import eventually, is_running
from session_rig import make_lease, remember_measured_profile

from agent.session.home import Home
from tunefleet.errors import Reason
from tunefleet.v1 import lease_pb2

_MAIN = """
import atexit, json, sys
from agent.cli import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
main()
"""
_HEAVY = {"tvm", "tvm_ffi", "numpy", "onnxruntime", "torch"}


@pytest.fixture
async def server() -> AsyncIterator[InMemoryCoordinator]:
    server = InMemoryCoordinator()
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def _agent(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MAIN, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _refusal(*arguments: str) -> tuple[int | None, str]:
    async with _agent("run", *arguments) as agent:
        _, errors = await agent.communicate()
        return agent.returncode, errors.decode()


def _options(server: InMemoryCoordinator, home: Path) -> tuple[str, ...]:
    return ("run", "--coordinator", server.address, "--home", str(home))


async def test_an_idle_agent_is_small_and_has_imported_nothing_heavy(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    remember_measured_profile(tmp_path)
    async with _agent(*_options(server, tmp_path)) as agent:
        await eventually(lambda: server.acquisitions > 0)
        process = psutil.Process(agent.pid)
        resident = process.memory_info().rss
        assert process.children() == []
        agent.terminate()
        output, _ = await agent.communicate()
    assert _HEAVY.isdisjoint(json.loads(output.splitlines()[-1]))
    assert resident < 80e6


async def test_it_registers_with_what_the_command_line_says(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    remember_measured_profile(tmp_path)
    options = ("--name", "board", "--label", "site=lab", "--label", "rack=2", "--cores", "1")
    async with _agent(*_options(server, tmp_path), *options):
        await eventually(lambda: bool(server.registrations))
    first = server.registrations[0]
    assert first.name == "board"
    assert dict(first.labels) == {"site": "lab", "rack": "2"}
    assert first.profile.logical_cores == 1


async def test_it_asks_for_work_only_after_it_has_measured_itself(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    remember_measured_profile(tmp_path)
    async with _agent(*_options(server, tmp_path)):
        await eventually(lambda: server.acquisitions > 0)
    measured = [request.profile.HasField("measured") for request in server.registrations]
    assert measured == [False, True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_with_exit_code_0(
    server: InMemoryCoordinator, tmp_path: Path, number: signal.Signals
) -> None:
    remember_measured_profile(tmp_path)
    async with _agent(*_options(server, tmp_path)) as agent:
        await eventually(lambda: server.acquisitions > 0)
        agent.send_signal(number)
        assert await agent.wait() == 0


@pytest.fixture
async def at_work(server: InMemoryCoordinator, tmp_path: Path) -> InMemoryCoordinator:
    """A coordinator that has a round for an agent, and holds back a blob that it needs."""
    remember_measured_profile(tmp_path)
    server.blobs_held = asyncio.Event()
    server.grant(make_lease())
    return server


async def test_with_drain_on_term_it_finishes_its_round(
    at_work: InMemoryCoordinator, tmp_path: Path
) -> None:
    assert at_work.blobs_held is not None
    async with _agent(*_options(at_work, tmp_path), "--drain-on-term") as agent:
        await eventually(lambda: bool(at_work.active))
        agent.terminate()
        at_work.grant(make_lease("lease-2"))
        at_work.blobs_held.set()
        assert await agent.wait() == 0
    # There is no such blob, which is how this round ends.
    assert [c.outcome for c in at_work.completions] == [lease_pb2.LEASE_OUTCOME_FAILED]


async def test_with_drain_on_term_a_second_signal_gives_the_round_back(
    at_work: InMemoryCoordinator, tmp_path: Path
) -> None:
    async with _agent(*_options(at_work, tmp_path), "--drain-on-term") as agent:
        assert agent.stderr is not None
        await eventually(lambda: bool(at_work.active))
        agent.terminate()
        while b"finishing the round" not in await agent.stderr.readline():
            pass
        agent.terminate()
        assert await agent.wait() == 0
    assert [c.outcome for c in at_work.completions] == [lease_pb2.LEASE_OUTCOME_RETURNED]


async def test_it_stops_while_it_is_measuring_itself_and_leaves_no_process(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    async with _agent(*_options(server, tmp_path)) as agent:
        process = psutil.Process(agent.pid)
        await eventually(lambda: bool(process.children()))
        jobs = process.children(recursive=True)
        agent.terminate()
        assert await agent.wait() == 0
    assert not any(is_running(job.pid) for job in jobs)


async def test_with_nobody_there_it_keeps_trying_and_says_so(tmp_path: Path) -> None:
    nobody = InMemoryCoordinator()
    await nobody.start()
    await nobody.stop()
    async with _agent(*_options(nobody, tmp_path)) as agent:
        assert agent.stderr is not None
        lines = [json.loads(await agent.stderr.readline()) for _ in range(2)]
        assert lines[1]["event"] == "coordinator does not answer, trying again"
        await nobody.start()
        await eventually(lambda: bool(nobody.registrations))
        agent.terminate()
        assert await agent.wait() == 0
    await nobody.stop()


async def test_it_waits_for_a_disk_that_lets_it_keep_trials(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    remember_measured_profile(tmp_path)
    # As on a full disk, the file cannot be opened.
    (tmp_path / "outbox.db").mkdir()
    async with _agent(*_options(server, tmp_path)) as agent:
        assert agent.stderr is not None
        lines = [json.loads(await agent.stderr.readline()) for _ in range(3)]
        assert lines[-1]["event"] == "outbox cannot be opened for now"
        (tmp_path / "outbox.db").rmdir()
        await eventually(lambda: server.acquisitions > 0)
        agent.terminate()
        assert await agent.wait() == 0


async def test_it_stops_also_while_it_waits_for_its_disk(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    (tmp_path / "outbox.db").mkdir()
    async with _agent(*_options(server, tmp_path)) as agent:
        assert agent.stderr is not None
        for _ in range(2):
            await agent.stderr.readline()
        agent.terminate()
        assert await agent.wait() == 0
    assert server.registrations == []


async def test_a_home_in_use_is_named(server: InMemoryCoordinator, tmp_path: Path) -> None:
    with Home(tmp_path):
        code, errors = await _refusal("--coordinator", server.address, "--home", str(tmp_path))
    assert code == Reason.HOME_IN_USE.value.exit_code
    assert str(tmp_path) in errors


@pytest.mark.parametrize(
    ("reason", "status", "expected"),
    [
        (Reason.INCOMPATIBLE, None, Reason.INCOMPATIBLE),
        (None, grpc.StatusCode.UNAUTHENTICATED, Reason.UNAUTHENTICATED),
        (None, grpc.StatusCode.UNIMPLEMENTED, Reason.INCOMPATIBLE),
        (Reason.INVALID_ARGUMENT, None, Reason.INVALID_ARGUMENT),
    ],
)
async def test_a_refusal_that_no_retry_cures_ends_it(
    server: InMemoryCoordinator,
    tmp_path: Path,
    reason: Reason | None,
    status: grpc.StatusCode | None,
    expected: Reason,
) -> None:
    server.register_refusal = (reason, status)
    code, errors = await _refusal("--coordinator", server.address, "--home", str(tmp_path))
    assert code == expected.value.exit_code
    assert expected.value.hint in errors


async def test_a_coordinator_that_speaks_no_protocol_of_ours_is_named(
    server: InMemoryCoordinator, tmp_path: Path
) -> None:
    server.protocols = (98, 99)
    code, errors = await _refusal("--coordinator", server.address, "--home", str(tmp_path))
    assert code == Reason.INCOMPATIBLE.value.exit_code
    assert "coordinator 0 speaks protocol 98-99" in errors
    assert "pip install 'tunefleet[agent]==0'" in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--coordinator", "nowhere"), "'nowhere'"),
        (("--coordinator", "localhost:99999"), "localhost:99999"),
        (("--coordinator", "localhost:1", "--target", "{"), "not valid JSON"),
        (("--coordinator", "localhost:1", "--label", "site"), "KEY=VALUE"),
        (("--coordinator", "localhost:1", "--cores", "100000"), "--cores 100000"),
        (("--coordinator", "localhost:1", "--log-level", "loud"), "'loud'"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    code, errors = await _refusal(*arguments, "--home", str(tmp_path))
    assert code == Reason.INVALID_ARGUMENT.value.exit_code
    assert named in errors


async def test_an_agent_without_its_libraries_names_them(tmp_path: Path) -> None:
    blocked = tmp_path / "sitecustomize.py"
    blocked.write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'tvm' else find(name, *rest)\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent", "run", "--coordinator", "localhost:1"),
        *("--home", str(tmp_path / "home")),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == Reason.NOT_INSTALLED.value.exit_code
    assert "tvm" in errors.decode()
