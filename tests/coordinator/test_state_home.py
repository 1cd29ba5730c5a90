from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.state.home import Home
from tunefleet.errors import Reason, TuneFleetError

HOLD = """
import sys
from pathlib import Path
from coordinator.state.home import Home
with Home(Path(sys.argv[1])).exclusive():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_home_is_for_its_user_only(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    assert home.root.stat().st_mode & 0o077 == 0
    assert home.campaigns_dir.is_dir()


def test_a_home_can_be_taken_again_once_it_is_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for _ in range(2):
        with home.exclusive():
            pass


def test_two_processes_never_share_a_home_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(TuneFleetError, match=str(holder.pid)) as raised,
            Home(tmp_path).exclusive(),
        ):
            pass
        assert raised.value.reason is Reason.HOME_IN_USE
    finally:
        holder.kill()
        holder.communicate()
    with Home(tmp_path).exclusive():
        pass
