"""An agent's home says who it is and belongs to one agent at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.session.home import Home
from tunefleet.errors import Reason, TuneFleetError


def test_the_device_id_stays_the_same(tmp_path: Path) -> None:
    with Home(tmp_path / "home") as home:
        first = home.device_id()
    with Home(tmp_path / "home") as home:
        assert home.device_id() == first


def test_two_homes_are_two_devices(tmp_path: Path) -> None:
    with Home(tmp_path / "a") as a, Home(tmp_path / "b") as b:
        assert a.device_id() != b.device_id()


def test_a_damaged_id_is_replaced(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        (tmp_path / "device_id").write_text("\0\0", encoding="ascii")
        made = home.device_id()
        assert home.device_id() == made


def test_a_home_in_use_is_refused(tmp_path: Path) -> None:
    with Home(tmp_path), pytest.raises(TuneFleetError) as raised, Home(tmp_path):
        pass
    assert raised.value.reason is Reason.HOME_IN_USE


def test_a_home_that_was_left_may_be_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Home(tmp_path) as home:
            assert home.path == tmp_path


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuneFleetError) as raised, Home(tmp_path / "file" / "home"):
        pass
    assert raised.value.reason is Reason.INVALID_ARGUMENT
