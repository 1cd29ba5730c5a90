"""Real coordinators and agents for end-to-end tests: started, watched, killed, started again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from agent.profile.cache import Measurement, cache_key, store
from agent.profile.static import read_static_profile
from tunefleet.targets import canonical_target

T = TypeVar("T")


def eventually(what: str, read: Callable[[], T | None], timeout_s: float = 300.0) -> T:
    """Poll until there is a true value; fail naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = read()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {timeout_s} s")


def write_small_network(path: Path, seed: int = 0) -> Path:
    """Write a network of two convolutions, pooling and a dense layer with random weights."""
    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        fan_in = int(np.prod(shape[1:]))
        values = rng.normal(scale=(2 / fan_in) ** 0.5, size=shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [
            weight("w1", 16, 3, 3, 3),
            weight("b1", 16),
            weight("w2", 32, 16, 3, 3),
            weight("w3", 10, 32),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


class Process:
    """A command as a child process with its log in a file."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str]) -> None:
        self._log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, **env},
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._child.send_signal(signal.SIGKILL)
        self._child.wait()

    def ask_to_stop(self) -> None:
        """Ask it to end, and do not wait."""
        self._child.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to end and wait; returns its exit code."""
        self.ask_to_stop()
        return self.wait()

    def wait(self) -> int:
        """Wait until it ends, as it was asked to; returns its exit code."""
        try:
            return self._child.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def alive(self) -> bool:
        return self._child.poll() is None


@dataclass(frozen=True)
class StoredTrial:
    """A trial as the coordinator's database has it."""

    trial_id: str
    workload: str
    target: str
    fingerprint: str
    candidate: str
    lease_kind: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What must not be measured twice by rounds."""
        return (self.workload, self.target, self.fingerprint, self.candidate)


class Fleet:
    """One coordinator and its agents under one folder.

    Agents find ``measured`` in their homes, as after a restart; without it they measure themselves.
    """

    def __init__(self, folder: Path, measured: Measurement | None = None) -> None:
        self.folder = folder
        self._measured = measured
        self.home = folder / "coordinator"
        # With certificates, as users run it; the tests' default is plain text.
        self._env = {
            "TUNEFLEET_LOCK_DIR": str(folder / "locks"),
            "TUNEFLEET_INSECURE": "0",
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        self._listen = "127.0.0.1:0"
        self.coordinator: Process | None = None
        self.agents: dict[str, Process] = {}

    def start_coordinator(self) -> None:
        """Start it; after the first time on the same port, since agents know that one."""
        address_file = self.home / "run" / "address"
        address_file.unlink(missing_ok=True)
        self.coordinator = Process(
            ["coordinator", "--home", str(self.home), "--listen", self._listen],
            self.folder / "coordinator.log",
            self._env,
        )
        coordinator = self.coordinator
        self.address = eventually(
            "the coordinator's address",
            lambda: (
                address_file.read_text().strip()
                if address_file.exists()
                else self._require(coordinator)
            ),
        )
        self._listen = self.address

    def start_agent(self, name: str, *arguments: str) -> None:
        """Start an agent with a home of its own; the same name gets the same home again."""
        home = self.folder / name
        if self._measured is not None:
            target = arguments[arguments.index("--target") + 1] if "--target" in arguments else ""
            key = cache_key(read_static_profile(), canonical_target(target) if target else None)
            store(home, key, self._measured)
        # Once joined, an agent needs no token any more.
        joined = (home / "identity" / "identity.pem").exists()
        self.agents[name] = Process(
            [
                *("agent", "run", "--coordinator", self.address, "--name", name),
                *("--home", str(home), *arguments),
            ],
            self.folder / f"{name}.log",
            self._env if joined else {**self._env, "TUNEFLEET_TOKEN": self.join_token()},
        )

    def join_token(self) -> str:
        """Have a token made with which one agent joins."""
        return str(self.json("tokens", "create")["text"])

    def tunefleet(
        self, *arguments: str, timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run the users' command against this coordinator."""
        return subprocess.run(
            [sys.executable, "-m", "tunefleet.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **self._env, "TUNEFLEET_COORDINATOR": self.address},
        )

    def json(self, *arguments: str) -> Any:
        """Run the users' command and parse what it prints as JSON."""
        done = self.tunefleet(*arguments, "--format", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def trials(self) -> list[StoredTrial]:
        """Read the stored trials from the database's file, with or without a coordinator."""
        return [
            StoredTrial(*row)
            for row in self._read(
                "SELECT t.trial_id, s.workload, s.target, s.fingerprint, t.candidate, l.kind"
                " FROM trials t JOIN leases l ON l.lease_id = t.lease_id"
                " JOIN record_sets s ON s.record_set_id = t.record_set_id"
            )
        ]

    def active_leases(self) -> list[str]:
        """Read which leases are held."""
        return [row[0] for row in self._read("SELECT lease_id FROM leases WHERE state = 'active'")]

    def only_campaign(self) -> str:
        """Return the id of the one campaign there is."""
        [(campaign,)] = self._read("SELECT campaign_id FROM campaigns")
        return str(campaign)

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        database = self.home / "tunefleet.db"
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()

    def close(self) -> None:
        """End everything."""
        ending = [agent for agent in self.agents.values() if agent.alive()]
        for agent in ending:
            agent.ask_to_stop()
        for agent in ending:
            agent.wait()
        if self.coordinator is not None and self.coordinator.alive():
            self.coordinator.stop()

    @staticmethod
    def _require(process: Process) -> None:
        assert process.alive(), process.log()
