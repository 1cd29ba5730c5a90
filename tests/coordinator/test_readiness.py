"""Whom a campaign waits for before it is planned."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import NOW, UNMEASURED, campaign, device, reason_of

from coordinator.campaigns.readiness import ready_devices
from coordinator.state.records import DeviceRecord
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError

LONG_AGO = NOW - 3600.0


@pytest.fixture
def known(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def chosen(store: Store, said: list[str]) -> list[DeviceRecord]:
    return asyncio.run(ready_devices(store, campaign(), said.append, lambda: NOW))


def said_while_waiting(store: Store) -> list[str]:
    """What people are told; waiting must not have ended by then."""

    async def wait() -> list[str]:
        said: list[str] = []
        heard = asyncio.Event()

        def say(text: str) -> None:
            said.append(text)
            heard.set()

        waiting = asyncio.create_task(ready_devices(store, campaign(), say, lambda: NOW))
        hearing = asyncio.create_task(heard.wait())
        await asyncio.wait({waiting, hearing}, return_when=asyncio.FIRST_COMPLETED)
        assert not waiting.done()
        waiting.cancel()
        return said

    return asyncio.run(wait())


def test_all_that_are_ready_are_taken_the_offline_too(known: Store) -> None:
    known.put_device(device())
    known.put_device(device("jetson", last_seen_unix_s=LONG_AGO))
    said: list[str] = []
    assert [d.name for d in chosen(known, said)] == ["jetson", "pi4"]
    assert said == []


def test_one_that_measures_itself_is_waited_for(known: Store) -> None:
    known.put_device(device())
    known.put_device(device("jetson", profile=UNMEASURED, last_seen_unix_s=NOW))
    assert said_while_waiting(known) == ["waiting for jetson to measure itself"]


def test_one_that_vanished_before_it_was_ready_is_not_waited_for(known: Store) -> None:
    known.put_device(device())
    known.put_device(device("jetson", profile=UNMEASURED, last_seen_unix_s=LONG_AGO))
    assert [d.name for d in chosen(known, [])] == ["pi4"]


def test_it_is_waited_for_where_there_is_no_other(known: Store) -> None:
    known.put_device(device("jetson", profile=UNMEASURED, last_seen_unix_s=LONG_AGO))
    assert said_while_waiting(known) == ["waiting for jetson to come back"]


def test_without_any_device_it_ends(known: Store) -> None:
    with pytest.raises(TuneFleetError) as caught:
        chosen(known, [])
    assert reason_of(caught) is Reason.NO_DEVICE_MATCHES
