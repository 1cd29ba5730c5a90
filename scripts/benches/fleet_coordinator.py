"""A coordinator under a simulated fleet, and what its agents saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from coordinator.state.home import Home
from coordinator.state.sql import open_store
from scripts.benches.fleet_hardware import CAMPAIGN, seed_campaign
from scripts.benches.harness import await_value, note, tree_rss_mb
from tunefleet.client import TuneFleet
from tunefleet.identity.credentials import INSECURE_VARIABLE

_START_LIMIT_S = 120.0
_STOP_LIMIT_S = 30.0


@dataclass
class Seen:
    """What the agents saw during some time."""

    seconds: float
    acknowledged: int = 0
    rejected: int = 0
    leases: int = 0
    reports: int = 0
    heartbeats: int = 0
    streaming: int = 0
    lease_s: list[float] = field(default_factory=list)
    work_wait_s: list[float] = field(default_factory=list)
    report_call_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    cpu_share: float = 0.0
    """Of the coordinator, in cores."""
    agents_cpu_share: float = 0.0
    """Of the simulated agents."""

    def add(self, told: dict[str, Any]) -> None:
        """Take in what one process of agents tells."""
        for name in ("acknowledged", "rejected", "leases", "reports", "heartbeats", "streaming"):
            setattr(self, name, getattr(self, name) + told[name])
        self.lease_s += told["lease_s"]
        self.work_wait_s += told["work_wait_s"]
        self.report_call_s += told["report_call_s"]
        self.errors.update(told["errors"])


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class FleetRun:
    """A coordinator process and the processes with its agents."""

    def __init__(self, coordinator: subprocess.Popen[bytes], agents: int) -> None:
        self._coordinator = coordinator
        self._processes: list[subprocess.Popen[bytes]] = []
        self.agents = agents
        self._log = Path()

    def start_agents(self, address: str, processes: int, log: Path, stack: ExitStack) -> None:
        """Start processes of agents, not connected yet."""
        self._log = log
        shares = [self.agents // processes] * processes
        shares[0] += self.agents - sum(shares)
        for number, share in enumerate(shares):
            command = [
                *(sys.executable, "-m", "scripts.benches.fleet_agents", "--address", address),
                *("--first", str(sum(shares[:number])), "--agents", str(share)),
            ]
            output = stack.enter_context(log.open("ab"))
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output
            )
            stack.callback(_end, process)
            self._processes.append(process)
        self.tell(do="reset")

    def tell(self, **command: Any) -> list[dict[str, Any]]:
        """Give all processes a command and return their answers."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                said = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"a process of simulated agents ended: {said}")
            answers.append(json.loads(line))
        return answers

    def watch(self, seconds: float) -> Seen:
        """Let some time pass and return what happened in it."""
        self.tell(do="reset")
        began = time.monotonic()
        cpu = self._cpu_seconds()
        time.sleep(seconds)
        answers = self.tell(do="counts")
        seen = Seen(time.monotonic() - began)
        ours, theirs = (b - a for a, b in zip(cpu, self._cpu_seconds(), strict=True))
        seen.cpu_share, seen.agents_cpu_share = ours / seen.seconds, theirs / seen.seconds
        for answer in answers:
            seen.add(answer)
        return seen

    def rss_mb(self) -> float:
        """Return the coordinator's resident memory, with all it started, in MB."""
        return tree_rss_mb(self._coordinator.pid)

    def _cpu_seconds(self) -> tuple[float, float]:
        times = [
            psutil.Process(process.pid).cpu_times()
            for process in (self._coordinator, *self._processes)
        ]
        used = [each.user + each.system for each in times]
        return used[0], sum(used[1:])


@contextmanager
def running_fleet(
    folder: Path, agents: int, processes: int, database_url: str = "", *, plain: bool = False
) -> Iterator[tuple[FleetRun, TuneFleet]]:
    """Run a coordinator with a campaign at rest, and agents that are not connected yet.

    Afterwards it is checked that nothing that was acknowledged is missing.

    Args:
        folder: for its home and the logs.
        agents: to simulate.
        processes: to spread them over.
        database_url: of its state; its home's SQLite by default.
        plain: without TLS, for a comparison.
    """
    home = Home(folder / "home")
    home.root.mkdir(parents=True)
    url = database_url or home.database_url
    store = open_store(url)
    seed_campaign(store, agents)
    store.close()
    command = [
        *(sys.executable, "-m", "coordinator", "--home", str(home.root)),
        *("--listen", "127.0.0.1:0", "--base-model", "none", "--database", database_url),
    ]
    with ExitStack() as stack:
        log = stack.enter_context((folder / "coordinator.log").open("wb"))
        # What the coordinator leaves for this person's commands is not to be left in their home.
        environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
        environment[INSECURE_VARIABLE] = "1" if plain else "0"
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        stack.callback(_end, server)
        address = await_value(
            "the coordinator's address", lambda: _read(home.address_file), _START_LIMIT_S
        )
        run = FleetRun(server, agents)
        run.start_agents(address, processes, folder / "agents.log", stack)
        if plain:
            os.environ[INSECURE_VARIABLE] = "1"
        with TuneFleet(address, credentials=None if plain else home.admin_dir) as client:
            if not plain:
                note(f"fleet: enrolling {agents} agents")
                run.tell(do="enrol", token=client.create_token(uses=agents).text)
            yield run, client


def count_stored(folder: Path, database_url: str = "") -> int:
    """Return the trials that are in the state, once the coordinator has ended."""
    store = open_store(database_url or Home(folder / "home").database_url)
    try:
        return store.count_trials(CAMPAIGN)
    finally:
        store.close()


def _read(path: Path) -> str | None:
    return (path.read_text().strip() or None) if path.exists() else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        note(f"fleet: {process.args!r} did not end, killed")
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
