"""What an idle fleet costs: memory of coordinator and agent, and how soon an agent is connected.

Beside them, in the same run, what a TVM user would keep running instead: its RPC tracker and one
RPC server, started from the same environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from scripts.benches.harness import Figure, await_value, figure, note, tree_rss_mb
from tunefleet.client import TuneFleet

_SETTLE_S = 3.0
"""Time for a process to come to rest before its memory is read."""

_PROFILE_TIMEOUT_S = 120.0

_WITHOUT_TORCH = (
    "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:];"
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)
"""TVM imports torch wherever it is installed; a device that only serves TVM would not have it."""


def run(*, quick: bool, arguments: Sequence[str]) -> dict[str, Figure]:
    """Measure the footprint.

    Args:
        quick: two repeats instead of five.
        arguments: ``--repeats N``.

    Returns:
        Figures by name; memory in MB (1e6 bytes), times in seconds.
    """
    parser = argparse.ArgumentParser(prog="scripts/bench footprint", description=__doc__)
    parser.add_argument("--repeats", type=int, default=2 if quick else 5)
    repeats = parser.parse_args(arguments).repeats
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="tunefleet-footprint-") as scratch:
        for number in range(repeats):
            note(f"footprint: repeat {number + 1} of {repeats}")
            for name, value in _ours(Path(scratch) / str(number)).items():
                rows.setdefault(name, []).append(value)
            for name, value in _tvm_rpc().items():
                rows.setdefault(name, []).append(value)
    figures = {name: figure(values) for name, values in rows.items()}
    agent, server = figures["agent_idle_rss_mb"], figures["tvm_rpc_server_rss_mb"]
    figures["agent_rss_ratio_vs_tvm_rpc_server"] = figure([agent["value"] / server["value"]])
    return figures


def _ours(home: Path) -> dict[str, float]:
    """Measure one coordinator and one agent from nothing.

    The profile measured by the first agent is handed to the later ones, as after a restart, so
    that only the first repeat pays for micro-benchmarks.
    """
    coordinator = ["-m", "coordinator", "--home", str(home / "c"), "--listen", "127.0.0.1:0"]
    profile_home = home.parent / "agent"
    with _process(coordinator, home / "coordinator.log") as server:
        address = await_value(
            "the coordinator's address", _reader(home / "c" / "run" / "address"), 60
        )
        with TuneFleet(address) as fleet:
            began = time.monotonic()
            command = ["-m", "agent", "run", "--coordinator", address, "--home", str(profile_home)]
            with _process(command, home / "agent.log") as agent:
                await_value("the agent", lambda: fleet.devices() or None, 60)
                connected = time.monotonic() - began
                await_value(
                    "the agent's profile",
                    lambda: any(d.state == "online" for d in fleet.devices()) or None,
                    _PROFILE_TIMEOUT_S,
                )
                time.sleep(_SETTLE_S)
                cpu_before = _cpu_seconds(agent.pid) + _cpu_seconds(server.pid)
                time.sleep(_SETTLE_S)
                cpu = _cpu_seconds(agent.pid) + _cpu_seconds(server.pid) - cpu_before
                return {
                    "agent_connect_s": connected,
                    "agent_idle_rss_mb": tree_rss_mb(agent.pid),
                    "coordinator_idle_rss_mb": tree_rss_mb(server.pid),
                    "idle_cpu_share": cpu / _SETTLE_S,
                }


def _tvm_rpc() -> dict[str, float]:
    """Measure TVM's tracker and server at rest."""
    port, server_port = _free_port(), _free_port()
    tracker = [
        *("-c", _WITHOUT_TORCH, "tvm.exec.rpc_tracker", "--host", "127.0.0.1"),
        *("--port", str(port), "--port-end", str(port + 1)),
    ]
    server = [
        *("-c", _WITHOUT_TORCH, "tvm.exec.rpc_server", "--host", "127.0.0.1", "--key", "bench"),
        *("--tracker", f"127.0.0.1:{port}"),
        *("--port", str(server_port), "--port-end", str(server_port + 1)),
    ]
    log = Path(tempfile.gettempdir()) / f"tunefleet-footprint-tvm-{os.getpid()}.log"
    try:
        with _process(tracker, log) as tracking, _process(server, log) as serving:
            await_value("TVM's tracker", lambda: _listening(tracking, port), 120)
            time.sleep(_SETTLE_S)
            await_value("TVM's server", lambda: _connected(serving), 120)
            time.sleep(_SETTLE_S)
            return {
                "tvm_rpc_server_rss_mb": tree_rss_mb(serving.pid),
                "tvm_rpc_tracker_rss_mb": tree_rss_mb(tracking.pid),
            }
    finally:
        log.unlink(missing_ok=True)


@contextmanager
def _process(arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reader(path: Path) -> Callable[[], str | None]:
    return lambda: (path.read_text().strip() or None) if path.exists() else None


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _listening(process: subprocess.Popen[bytes], port: int) -> bool | None:
    return any(c.laddr.port == port for c in _connections(process) if c.status == "LISTEN") or None


def _connected(process: subprocess.Popen[bytes]) -> bool | None:
    return any(c.status == "ESTABLISHED" for c in _connections(process)) or None


def _connections(started: subprocess.Popen[bytes]) -> list[psutil._ntuples.pconn]:
    if started.poll() is not None:
        raise RuntimeError(f"{started.args} ended with exit code {started.returncode}")
    process = psutil.Process(started.pid)
    members = [process, *process.children(recursive=True)]
    return [c for member in members for c in member.net_connections(kind="tcp")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
