"""A coordinator's state, copied while it is written to, and brought back."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from store_samples import KEY, NOW, campaign, device, lease, reason_of, task, trial

from coordinator.security.authority import Authority
from coordinator.state.backup import (
    ABOUT_FILE,
    DATABASE_FILE,
    FENCING_LEAP,
    Copied,
    back_up,
    restore,
)
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from tunefleet.cli.app import run
from tunefleet.errors import Reason, TuneFleetError

CONTENTS = (b"a workload", b"a model", b"a module")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The folder of a coordinator that has measured something."""
    made = Home(tmp_path / "home")
    made.create()
    blobs = BlobStore(made.blobs_dir)
    for content in CONTENTS:
        blobs.put(content)
    store = open_store(made.database_url)
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease(token=store.next_fencing_token()))
    store.ingest_trials("id-pi4", "l-1", 1, [trial(n) for n in (1, 2, 3)], NOW)
    store.close()
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def other(tmp_path: Path) -> Home:
    """A folder to restore into."""
    return Home(tmp_path / "other")


def backed_up(home: Home, place: Path) -> Copied:
    return back_up(home, place, lambda *_: None, now=NOW)


def restored(place: Path, home: Home) -> Copied:
    return restore(place, home, lambda *_: None)


def spoil(blobs: Path) -> str:
    """Change a byte of a blob on the disk; returns its digest."""
    path = next(path for path in blobs.glob("??/*") if len(path.name) == 62)
    path.chmod(0o644)
    path.write_bytes(b"X" + path.read_bytes()[1:])
    return path.parent.name + path.name


def test_what_is_restored_is_what_was_backed_up(home: Home, place: Path, other: Home) -> None:
    assert backed_up(home, place) == Copied(3, 3, sum(map(len, CONTENTS)), ())
    assert restored(place, other).copied == 3
    store = open_store(other.database_url)
    assert store.count_trials("c-1") == 3
    assert store.task_progress("c-1")[0].best_s == 1e-3
    assert store.tried_candidates(KEY) == {trial(n).candidate for n in (1, 2, 3)}
    store.close()
    blobs = BlobStore(other.blobs_dir)
    digests = [BlobStore(home.blobs_dir).put(content) for content in CONTENTS]
    assert [blobs.read(digest, verify=True) for digest in digests] == list(CONTENTS)


def test_a_fencing_token_of_after_the_backup_is_never_granted_again(
    home: Home, place: Path, other: Home
) -> None:
    backed_up(home, place)
    later = open_store(home.database_url)
    tokens = {later.next_fencing_token() for _ in range(5)}
    later.close()
    restored(place, other)
    store = open_store(other.database_url)
    first = store.next_fencing_token()
    assert first > max(tokens)
    assert first > FENCING_LEAP
    store.close()


def test_the_keys_of_the_authority_come_along(home: Home, place: Path, other: Home) -> None:
    before = Authority(home.authority_dir)
    backed_up(home, place)
    restored(place, other)
    after = Authority(other.authority_dir)
    assert (after.pem, after.pin) == (before.pem, before.pin)
    keys = [*(place / "authority").iterdir(), *other.authority_dir.iterdir()]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_a_second_backup_copies_what_is_new(home: Home, place: Path, other: Home) -> None:
    backed_up(home, place)
    BlobStore(home.blobs_dir).put(b"news")
    assert backed_up(home, place) == Copied(4, 1, 4, ())
    assert restored(place, other).blobs == 4


def test_it_is_of_one_moment_while_trials_come_in(home: Home, place: Path, other: Home) -> None:
    script = Path(__file__).with_name("store_ingester.py")
    url = f"sqlite:///{home.root / 'busy.db'}"
    ingester = subprocess.Popen([sys.executable, str(script), url], stdout=subprocess.PIPE)
    assert ingester.stdout is not None
    list(itertools.islice(ingester.stdout, 10))
    (home.root / DATABASE_FILE).unlink()
    (home.root / DATABASE_FILE).symlink_to(home.root / "busy.db")
    try:
        backed_up(home, place)
        assert ingester.poll() is None
    finally:
        ingester.kill()
        ingester.communicate()
    restored(place, other)
    store = open_store(other.database_url)
    assert store.count_trials("c-1") >= 10
    assert store.task_progress("c-1")[0].trials == store.count_trials("c-1")
    store.close()


def test_a_spoiled_blob_is_named_and_left_out(home: Home, place: Path, other: Home) -> None:
    digest = spoil(home.blobs_dir)
    assert backed_up(home, place).spoiled == (digest,)
    assert restored(place, other).blobs == 2


def test_a_blob_that_the_backups_disk_spoiled_is_not_restored(
    home: Home, place: Path, other: Home
) -> None:
    backed_up(home, place)
    digest = spoil(place / "blobs")
    assert restored(place, other).spoiled == (digest,)
    assert not BlobStore(other.blobs_dir).has(digest)


def test_a_state_is_never_overwritten(home: Home, place: Path) -> None:
    backed_up(home, place)
    with pytest.raises(TuneFleetError, match="state of its own") as raised:
        restored(place, home)
    assert reason_of(raised) is Reason.INVALID_ARGUMENT


def test_nothing_is_restored_under_a_coordinator_that_runs(
    home: Home, place: Path, other: Home
) -> None:
    backed_up(home, place)
    with other.exclusive(), pytest.raises(TuneFleetError) as raised:
        restored(place, other)
    assert reason_of(raised) is Reason.HOME_IN_USE


def test_a_backup_that_was_interrupted_is_none(home: Home, place: Path, other: Home) -> None:
    def interrupt(share: float, message: str) -> None:
        if share > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(home, place, interrupt, now=NOW)
    with pytest.raises(TuneFleetError, match="no complete backup"):
        restored(place, other)
    backed_up(home, place)
    assert restored(place, other).blobs == 3


def test_a_restoration_that_was_interrupted_goes_on(home: Home, place: Path, other: Home) -> None:
    def interrupt(share: float, message: str) -> None:
        if share == 1.0:
            raise KeyboardInterrupt

    backed_up(home, place)
    with pytest.raises(KeyboardInterrupt):
        restore(place, other, interrupt)
    assert not (other.root / DATABASE_FILE).exists()
    assert restored(place, other).blobs == 3
    assert (other.root / DATABASE_FILE).exists()


def test_a_damaged_database_is_refused(home: Home, place: Path, other: Home) -> None:
    backed_up(home, place)
    content = bytearray((place / DATABASE_FILE).read_bytes())
    content[4096:8192] = b"\xff" * 4096
    (place / DATABASE_FILE).write_bytes(content)
    with pytest.raises(TuneFleetError, match="damaged"):
        restored(place, other)
    assert not (other.root / DATABASE_FILE).exists()


def test_a_backup_of_a_newer_release_is_refused(home: Home, place: Path, other: Home) -> None:
    with closing(sqlite3.connect(home.root / DATABASE_FILE)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'future'")
    backed_up(home, place)
    with pytest.raises(TuneFleetError) as raised:
        restored(place, other)
    assert reason_of(raised) is Reason.INCOMPATIBLE
    assert not (other.root / DATABASE_FILE).exists()


def test_a_folder_with_something_else_is_left_alone(home: Home, place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("all of it")
    with pytest.raises(TuneFleetError, match="neither empty nor a backup"):
        backed_up(home, place)
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


class TestCommands:
    def test_they_say_what_was_copied(
        self, home: Home, place: Path, other: Home, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["backup", str(place), "--home", str(home.root)]) == 0
        assert "3 of 3 blobs copied" in capsys.readouterr().out
        arguments = ["restore", str(place), "--home", str(other.root), "--format", "json"]
        assert run(arguments) == 0
        assert json.loads(capsys.readouterr().out)["blobs"] == 3
        assert json.loads((place / ABOUT_FILE).read_text())["complete"]

    def test_a_spoiled_blob_shows_in_the_exit_code(
        self, home: Home, place: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        digest = spoil(home.blobs_dir)
        code = run(["backup", str(place), "--home", str(home.root)])
        assert code == Reason.BLOB_CORRUPT.value.exit_code
        assert digest in capsys.readouterr().err
        assert json.loads((place / ABOUT_FILE).read_text())["spoiled"] == [digest]

    def test_a_folder_without_a_state_is_refused(
        self, place: Path, other: Home, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = run(["backup", str(place), "--home", str(other.root)])
        assert code == Reason.INVALID_ARGUMENT.value.exit_code
        assert "pg_dump" in capsys.readouterr().err
