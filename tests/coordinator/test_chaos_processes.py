"""The chaos bench's processes: who is killed comes back, who ends is told, none stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scripts.benches.chaos_disk import SmallDisk
from scripts.benches.chaos_processes import Member, descendants

PATIENCE_S = 20.0
SLEEPER = "import subprocess, sys; subprocess.Popen(['sleep', '600']).wait()"
CLOCK = "import time; print(time.time(), time.time_ns() / 1e9, time.monotonic())"
TWO_DAYS_S = 172_800.0


@pytest.fixture
def member(tmp_path: Path) -> Member:
    """A process with a child."""
    return Member("sleeper", [sys.executable, "-c", SLEEPER], tmp_path / "log", {})


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_member_that_was_killed_is_no_surprise_and_starts_again(member: Member) -> None:
    member.start()
    first = member.pid
    member.kill()
    assert member.ended()
    assert member.surprises == []
    member.start()
    assert member.pid not in {first, None}
    member.kill()


def test_a_member_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    script = "import sys; sys.exit('the disk is full')"
    member = Member("fragile", [sys.executable, "-c", script], tmp_path / "log", {})
    member.start()
    eventually(member.ended)
    assert member.surprises == ["fragile ended with code 1: the disk is full"]


def test_descendants_are_found_and_the_dead_are_not(member: Member) -> None:
    member.start()
    eventually(lambda: len(descendants([member.pid])) == 1)
    [child] = descendants([member.pid, None])
    child.send_signal(signal.SIGKILL)
    eventually(member.ended)
    assert descendants([member.pid]) == []


def test_the_number_of_the_start_goes_into_the_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    member = Member("numbered", [sys.executable, "-c", "print('start', {starts})"], log, {})
    for _ in range(2):
        member.start()
        eventually(member.ended)
    assert log.read_text().split("\n")[:2] == ["start 1", "start 2"]


@pytest.mark.parametrize("offset_s", [TWO_DAYS_S, -TWO_DAYS_S, 0.0])
def test_a_member_with_another_clock_lives_in_another_time(tmp_path: Path, offset_s: float) -> None:
    log = tmp_path / "log"
    member = Member("late", [sys.executable, "-c", CLOCK], log, {}, clock_offset_s=offset_s)
    member.start()
    eventually(member.ended)
    now_s, now_ns_s, monotonic_s = map(float, log.read_text().split())
    assert now_s - time.time() == pytest.approx(offset_s, abs=PATIENCE_S)
    assert now_ns_s == pytest.approx(now_s, abs=1.0)
    assert monotonic_s == pytest.approx(time.monotonic(), abs=PATIENCE_S)


DEADLINE = """
import time
from grpc.aio._utils import _timeout_to_deadline
print(_timeout_to_deadline(0.0), time.time())
"""


def test_deadlines_of_calls_are_on_the_clock_that_grpc_itself_reads(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", DEADLINE]
    member = Member("late", command, log, {}, clock_offset_s=-TWO_DAYS_S)
    member.start()
    eventually(member.ended)
    deadline_s, now_s = map(float, log.read_text().split())
    assert deadline_s - now_s == pytest.approx(TWO_DAYS_S, abs=PATIENCE_S)


LEAVER = """
import subprocess
print(subprocess.Popen(["sleep", "600"], start_new_session=True).pid, flush=True)
"""
KILLER = f"""
import subprocess, sys
from scripts.benches.chaos_processes import adopt_orphans, kill_everything
adopt_orphans()
subprocess.run([sys.executable, "-c", {LEAVER!r}])
kill_everything()
"""


def test_processes_whose_parents_are_gone_are_ended_too() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", KILLER], cwd=root, capture_output=True, text=True, check=True
    )
    eventually(lambda: not psutil.pid_exists(int(done.stdout)))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_takes_no_byte_until_it_is_emptied(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "home", size_mib=8)
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "home" / "file").write_bytes(b"x" * 4096)
        disk.empty()
        (tmp_path / "home" / "file").write_bytes(b"x" * 4096)
    finally:
        subprocess.run(["umount", tmp_path / "home"], check=True)
