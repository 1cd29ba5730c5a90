"""What only PostgreSQL can do, or does in its own way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import NOW, campaign, device, lease, reason_of, task, trial

from coordinator.main import DATABASE_VARIABLE
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from scripts.postgresql_server import Server
from tests.e2e.fleet import eventually
from tunefleet.errors import Reason, TuneFleetError


@pytest.fixture
def two_stores(postgresql: Server) -> Iterator[tuple[Store, Store]]:
    """One database as two processes see it."""
    url = postgresql.new_database()
    stores = open_store(url), open_store(url)
    yield stores
    for store in stores:
        store.close()


def at_once(stores: tuple[Store, Store], work: str, *arguments: object) -> list[object]:
    """Call a method of both stores again and again, at the same time."""
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(getattr(stores[n % 2], work), *arguments) for n in range(40)]
        return [call.result() for call in calls]


def test_two_processes_never_get_the_same_fencing_token(two_stores: tuple[Store, Store]) -> None:
    assert len(set(at_once(two_stores, "next_fencing_token"))) == 40


def test_a_report_that_two_processes_take_in_at_once_counts_once(
    two_stores: tuple[Store, Store],
) -> None:
    first, other = two_stores
    first.put_device(device())
    first.create_campaign(campaign(), "")
    first.add_tasks("c-1", [task()])
    first.grant_lease(lease())
    batch = [trial(n) for n in range(1, 6)]
    at_once(two_stores, "ingest_trials", "id-pi4", "l-1", 1, batch, NOW)
    assert other.count_trials() == 5
    assert other.task_progress("c-1")[0].trials == 5


def test_what_its_texts_cannot_hold_is_replaced(postgresql: Server) -> None:
    store = open_store(postgresql.new_database())
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease())
    failed = replace(trial(1), error="ended with \0 in its last words")
    assert store.ingest_trials("id-pi4", "l-1", 1, [failed], NOW).new == 1
    store.close()


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError) as raised:
        open_store(f"postgresql://me:secret@/tunefleet?host={tmp_path}")
    assert reason_of(raised) is Reason.DATABASE_UNREACHABLE
    assert "me:***@" in raised.value.message
    assert "secret" not in raised.value.message


@pytest.mark.parametrize("url", ["mysql://host/tunefleet", "tunefleet.db", "nosuch://host"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(TuneFleetError, match="SQLite or PostgreSQL") as raised:
        open_store(url)
    assert reason_of(raised) is Reason.INVALID_ARGUMENT


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(TuneFleetError, match="psycopg") as raised:
        open_store("postgresql://host/tunefleet")
    assert reason_of(raised) is Reason.NOT_INSTALLED
    assert "tunefleet[coordinator,postgresql]" in raised.value.hint


def test_a_coordinator_keeps_its_state_there(postgresql: Server, tmp_path: Path) -> None:
    url = postgresql.new_database()
    home = tmp_path / "home"
    process = subprocess.Popen(
        [sys.executable, "-m", "coordinator", "--home", str(home), "--listen", "127.0.0.1:0"],
        env=os.environ | {DATABASE_VARIABLE: url},
    )
    try:
        eventually("the coordinator's address", (home / "run" / "address").exists)
        store = open_store(url)
        eventually("the base model", lambda: len(store.list_model_versions()) == 1)
        store.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not list(home.glob("*.db"))
