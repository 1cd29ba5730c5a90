"""Stores to test, one for each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import OTHER_KEY, campaign, device, lease, task

from coordinator.state.sql import open_store
from coordinator.state.store import Store
from scripts.postgresql_server import Server, find_binaries, running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, where it is installed."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    with running(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that is still empty; every kind passes the same tests."""
    if request.param == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        return server.new_database()
    return f"sqlite:///{tmp_path / 'store.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    opened = open_store(url)
    yield opened
    opened.close()


@pytest.fixture
def busy_store(store: Store) -> Store:
    """A store with a device that holds a lease on the first of two tasks of a campaign."""
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task(), task(OTHER_KEY, "dense")])
    store.grant_lease(lease())
    return store
