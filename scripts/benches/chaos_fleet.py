"""A coordinator and several agents as users start them, with all that makes them suffer."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from scripts.benches.chaos_disk import SmallDisk, own_mounts
from scripts.benches.chaos_processes import (
    Member,
    adopt_orphans,
    descendants,
    kill_everything,
    reap_orphans,
)
from scripts.benches.chaos_proxy import Proxy, ProxyThread
from scripts.benches.chaos_schedule import Role
from scripts.benches.harness import await_value, note
from tunefleet.client import TuneFleet

_COORDINATOR_DISK_MIB = 1024
"""Room for what a coordinator wants free before it begins anything, twice, and for its work."""
_AGENT_DISK_MIB = 192
_START_S = 180.0
_ORPHANS_END_S = 10.0
"""Killed ones need a moment on a busy machine."""


class ChaosFleet:
    """The fleet. Only :func:`chaos_fleet` makes one."""

    def __init__(self, folder: Path, agents: int, seed: int, proxies: ProxyThread) -> None:
        self.folder = folder
        self.home = folder / "coordinator"
        self.peace_file = folder / "peace"
        host, port, enrolment_port = "127.0.0.1", *_free_ports()
        self.address = f"{host}:{port}"
        config = folder / "config"
        self.credentials = config / "tunefleet" / "credentials" / f"{host}_{port}"
        """Of the user who started the coordinator."""
        # Other benches' fleets speak plain text.
        self._env = {
            "TUNEFLEET_LOCK_DIR": str(folder / "locks"),
            "TUNEFLEET_INSECURE": "0",
            "XDG_CONFIG_HOME": str(config),
        }
        self.proxies: dict[str, Proxy] = {}
        self.disks: dict[str, SmallDisk] = {}
        self.coordinator = Member(
            name="coordinator",
            command=[
                *(sys.executable, "-m", "tunefleet.cli", "serve"),
                *("--home", str(self.home), "--listen", self.address),
                *("--enrolment-port", str(enrolment_port)),
            ],
            log=folder / "coordinator.log",
            env=self._env,
        )
        self.agents: dict[str, Member] = {}
        for number in range(agents):
            name = f"agent-{number + 1}"
            proxy = self.proxies[name] = Proxy((host, port), proxies.loop)
            self.agents[name] = self._agent(name, proxy.start(), seed)

    @property
    def members(self) -> list[Member]:
        """The coordinator and the agents."""
        return [self.coordinator, *self.agents.values()]

    @property
    def journals(self) -> list[Path]:
        """What agents were told."""
        return [self.folder / f"{name}.journal" for name in self.agents]

    def agent_home(self, name: str) -> Path:
        """Return an agent's folder."""
        return self.folder / name

    def play(self, role: Role) -> list[int]:
        """Return the processes that play a role now, in an order that does not depend on chance."""
        agents = [agent.pid for agent in self.agents.values()]
        if role is Role.COORDINATOR:
            found = [self.coordinator.pid]
        elif role is Role.AGENT:
            found = agents
        else:
            parents = [self.coordinator.pid] if role is Role.JOB else agents
            found = [process.pid for process in descendants(parents)]
        return [pid for pid in found if pid is not None]

    def mount_disks(self) -> bool:
        """Give every home a small disk, where this user may; returns whether."""
        if not own_mounts():
            return False
        try:
            self.disks["coordinator"] = SmallDisk(self.home, _COORDINATOR_DISK_MIB)
            for name in self.agents:
                self.disks[name] = SmallDisk(self.agent_home(name), _AGENT_DISK_MIB)
        except OSError as e:
            note(f"chaos: no small disks: {e}")
            self.disks.clear()
        return bool(self.disks)

    def start(self) -> None:
        """Start all: the coordinator first, whose token the agents join with.

        Raises:
            TimeoutError: it does not listen.
            TuneFleetError: it makes no token.
        """
        self.coordinator.start()
        address = self.home / "run" / "address"
        await_value("the coordinator's address", lambda: address.exists() or None, _START_S)
        self._measure_once()
        with TuneFleet(self.address, credentials=self.credentials) as client:
            token = client.create_token(uses=len(self.agents)).text
        for agent in self.agents.values():
            # Also when they start again: who has joined with it does not join anew.
            agent.env = {**agent.env, "TUNEFLEET_TOKEN": token}
            agent.start()

    def make_peace(self) -> None:
        """End everything that makes them suffer, but for who is killed or stopped."""
        self.peace_file.touch()
        for proxy in self.proxies.values():
            proxy.heal()
        for disk in self.disks.values():
            disk.empty()

    def stop(self) -> int:
        """Have all of them end in peace; returns how many processes outlived whoever started them.

        These are killed.
        """
        for member in [*self.agents.values(), self.coordinator]:
            member.stop()
        deadline = time.monotonic() + _ORPHANS_END_S
        while (alive := reap_orphans([])) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in alive:
            with suppress(psutil.Error):
                command = " ".join(process.cmdline()[:6])
                note(f"chaos: outlived who started it: {process.status()} {command}")
        return len(alive)

    def keep(self, folder: Path) -> None:
        """Copy the homes to where they stay when the small disks are gone."""
        shutil.rmtree(folder, ignore_errors=True)
        for home in (self.home, *map(self.agent_home, self.agents)):
            shutil.copytree(home, folder / home.name)

    def _agent(self, name: str, address: str, seed: int) -> Member:
        journal = self.folder / f"{name}.journal"
        return Member(
            name=name,
            command=[
                *(sys.executable, "-m", "scripts.benches.chaos_agent"),
                *(str(journal), f"{seed}/{name}/{{starts}}", str(self.peace_file), "--"),
                *("run", "--coordinator", address, "--home", str(self.agent_home(name))),
                *("--name", name),
            ],
            log=self.folder / f"{name}.log",
            env=self._env,
        )

    def _measure_once(self) -> None:
        """Have the machine measured once, as after a restart of each agent: it is the same one."""
        from agent.profile.cache import Measurement, cache_key, store  # noqa: PLC0415
        from agent.profile.profiler import measure_profile  # noqa: PLC0415
        from agent.profile.static import read_static_profile  # noqa: PLC0415

        static = read_static_profile()
        profile = asyncio.run(measure_profile(static, self.folder / "measured", None))
        assert profile.measured is not None
        measurement = Measurement(profile.measured, profile.llvm_cpu)
        for name in self.agents:
            store(self.agent_home(name), cache_key(static, None), measurement)


@contextmanager
def chaos_fleet(folder: Path, agents: int, seed: int) -> Iterator[ChaosFleet]:
    """Make a fleet; whatever happens, no process of it is left behind.

    Args:
        folder: for homes, logs and journals.
        agents: how many.
        seed: of what befalls the agents' calls.
    """
    adopt_orphans()
    thread = ProxyThread()
    try:
        yield ChaosFleet(folder, agents, seed, thread)
    finally:
        with suppress(KeyboardInterrupt):
            kill_everything()
        thread.stop()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1]), int(other.getsockname()[1])
