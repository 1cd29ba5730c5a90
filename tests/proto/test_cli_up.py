"""``tunefleet up`` and ``serve`` with a real coordinator and a real agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tunefleet.client import TuneFleet
from tunefleet.errors import Reason

pytestmark = pytest.mark.e2e
END_TIMEOUT_S = 60
"""Ending takes a second or two; a busy machine may need longer."""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(command: str, home: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tunefleet.cli", command),
                *("--home", str(home), "--listen", "127.0.0.1:0"),
            ],
            env={**os.environ, "TUNEFLEET_LOCK_DIR": str(tmp_path / "locks")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=END_TIMEOUT_S)


def line_with(words: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if words in line)


def children(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Return both parts by name; a child that has just been forked has not its own name yet."""
    end = time.monotonic() + END_TIMEOUT_S
    while True:
        lines = [(c, c.cmdline()) for c in psutil.Process(process.pid).children()]
        found = {line[line.index("-m") + 1]: child for child, line in lines if "-m" in line}
        if len(found) == 2 or time.monotonic() > end:
            return found
        time.sleep(0.05)


@pytest.mark.parametrize("asking", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "hang-up"])
def test_both_run_until_they_are_asked_to_end(start, tmp_path, asking):
    up = start("up", tmp_path / "home")
    address = line_with("Coordinator answers at", up).split()[-1]
    line_with("Agent started", up)
    pair = children(up)
    with TuneFleet(address) as fleet:
        assert fleet.campaigns() == ()
    assert set(pair) == {"coordinator", "agent"}
    up.send_signal(asking)
    assert up.wait(END_TIMEOUT_S) == 0
    assert [child.is_running() for child in pair.values()] == [False, False]


def test_coordinator_that_dies_takes_the_agent_along(start, tmp_path):
    up = start("up", tmp_path / "home")
    line_with("Agent started", up)
    pair = children(up)
    pair["coordinator"].kill()
    assert "was ended by signal 9" in line_with("The coordinator", up)
    assert up.wait(END_TIMEOUT_S) == Reason.INTERNAL.value.exit_code
    assert not pair["agent"].is_running()


def test_home_that_is_in_use_shows_in_the_exit_code(start, tmp_path):
    first = start("up", tmp_path / "home")
    line_with("Agent started", first)
    second = start("up", tmp_path / "home")
    assert second.wait(END_TIMEOUT_S) == Reason.HOME_IN_USE.value.exit_code


def test_serve_becomes_the_coordinator(start, tmp_path):
    server = start("serve", tmp_path / "home")
    line_with("listening", server)
    assert "coordinator" in psutil.Process(server.pid).cmdline()
    address = (tmp_path / "home/run/address").read_text().strip()
    with TuneFleet(address) as fleet:
        assert [model.version for model in fleet.models()] == ["base"]


def test_part_that_is_not_installed_is_named(tmp_path):
    script = (
        "import sys; from importlib import util; real = util.find_spec;"
        "util.find_spec = lambda name: None if name in ('torch', 'sqlalchemy') else real(name);"
        "from tunefleet.cli.app import run; sys.exit(run(['up', '--home', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == Reason.NOT_INSTALLED.value.exit_code
    assert "sqlalchemy, torch not installed" in done.stderr
    assert "pip install 'tunefleet[coordinator]'" in done.stderr
