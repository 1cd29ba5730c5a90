"""The machine lock between real processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunefleet.machine_lock import MachineLock, default_lock_dir

# Enters a section, says so, and leaves it at the next line of input.
HOLDER = """
import sys
from pathlib import Path
from tunefleet.machine_lock import MachineLock
with getattr(MachineLock(Path(sys.argv[1])), sys.argv[2])():
    print("in", flush=True)
    sys.stdin.readline()
"""

# Enters one busy section of the given seconds after the other until it is killed.
READER = """
import sys, time
from pathlib import Path
from tunefleet.machine_lock import MachineLock
lock = MachineLock(Path(sys.argv[1]))
print("in", flush=True)
while True:
    with lock.busy():
        time.sleep(float(sys.argv[2]))
"""

# Marks a file while quiet, fifty times over.
TIMER = """
import sys
from pathlib import Path
from tunefleet.machine_lock import MachineLock
folder = Path(sys.argv[1])
mark = folder / "mark"
for _ in range(50):
    with MachineLock(folder).quiet() as held:
        assert held
        mark.touch()
        sum(range(20_000))
        mark.unlink()
"""

# Counts how often the mark was there while it was busy.
WORKER = """
import sys
from pathlib import Path
from tunefleet.machine_lock import MachineLock
folder = Path(sys.argv[1])
seen = 0
for _ in range(100):
    with MachineLock(folder).busy():
        seen += sum((folder / "mark").exists() for _ in range(100))
print(seen)
"""

# Forks a child inside a quiet section; the child outlives the section.
FORKING = """
import os, sys
from pathlib import Path
from tunefleet.machine_lock import MachineLock
with MachineLock(Path(sys.argv[1])).quiet():
    if os.fork() == 0:
        sys.stdin.readline()
        os._exit(0)
print("out", flush=True)
os.wait()
"""

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    """Start scripts on the lock in ``tmp_path`` and end them after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_quiet_gives_up_after_its_timeout_while_another_process_is_busy(
    spawn: Spawn, tmp_path: Path
) -> None:
    assert said(spawn(HOLDER, "busy")) == "in"
    with MachineLock(tmp_path).quiet(timeout_s=0.1) as held:
        assert not held


def test_quiet_is_had_once_the_busy_process_is_done(spawn: Spawn, tmp_path: Path) -> None:
    holder = spawn(HOLDER, "busy")
    assert said(holder) == "in"
    holder.communicate("leave\n")
    with MachineLock(tmp_path).quiet(timeout_s=10) as held:
        assert held


def test_quiet_excludes_quiet(spawn: Spawn, tmp_path: Path) -> None:
    assert said(spawn(HOLDER, "quiet")) == "in"
    with MachineLock(tmp_path).quiet(timeout_s=0.1) as held:
        assert not held


def test_many_processes_are_busy_at_once(spawn: Spawn) -> None:
    holders = [spawn(HOLDER, "busy") for _ in range(3)]
    assert [said(holder) for holder in holders] == ["in"] * 3


def test_busy_processes_never_see_the_inside_of_a_quiet_section(spawn: Spawn) -> None:
    workers = [spawn(WORKER), spawn(WORKER)]
    timer = spawn(TIMER)
    assert timer.wait(timeout=60) == 0
    assert [worker.communicate(timeout=60)[0].strip() for worker in workers] == ["0", "0"]


def test_a_waiting_writer_is_not_starved_by_overlapping_readers(
    spawn: Spawn, tmp_path: Path
) -> None:
    readers = [spawn(READER, seconds) for seconds in ("0.05", "0.08", "0.11")]
    assert [said(reader) for reader in readers] == ["in"] * 3
    for _ in range(10):
        with MachineLock(tmp_path).quiet(timeout_s=4) as held:
            assert held


@pytest.mark.parametrize("section", ["busy", "quiet"])
def test_a_killed_process_holds_nothing(section: str, spawn: Spawn, tmp_path: Path) -> None:
    holder = spawn(HOLDER, section)
    assert said(holder) == "in"
    holder.kill()
    holder.wait()
    with MachineLock(tmp_path).quiet(timeout_s=10) as held:
        assert held


def test_a_child_forked_inside_a_section_does_not_keep_the_lock(
    spawn: Spawn, tmp_path: Path
) -> None:
    assert said(spawn(FORKING)) == "out"
    with MachineLock(tmp_path).quiet(timeout_s=1) as held:
        assert held


def test_the_lock_is_released_when_a_section_raises(tmp_path: Path) -> None:
    lock = MachineLock(tmp_path)
    with pytest.raises(ZeroDivisionError), lock.busy():
        1 / 0  # noqa: B018
    with lock.quiet(timeout_s=10) as held:
        assert held


def test_the_folder_can_be_chosen_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path))
    assert default_lock_dir() == tmp_path
