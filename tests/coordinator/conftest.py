"""Stores to test, one for each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import BACKENDS, OTHER_KEY, campaign, device, lease, task

from coordinator.state.sql import open_store
from coordinator.state.store import Store


@pytest.fixture(params=list(BACKENDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that does not exist yet."""
    return BACKENDS[request.param](tmp_path)


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
