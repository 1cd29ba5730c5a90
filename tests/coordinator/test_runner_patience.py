"""A step that fails of a full disk or an absent database is done again, and no campaign fails."""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from store_samples import FINGERPRINT, TARGET, campaign, device, task

from coordinator.campaigns import runner
from coordinator.server.app import Core
from coordinator.server.bus import Bus
from coordinator.server.disk import LEAST_FREE_BYTES
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import CampaignState, GroupRecord
from coordinator.state.sql import open_store
from coordinator.wiring import wire
from tunefleet.errors import Reason, TuneFleetError

PATIENCE_S = 60.0
NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
JOB_FAILED = TuneFleetError(Reason.INTERNAL, "OSError: No space left on device")
DATABASE_FULL = OperationalError("UPDATE", {}, Exception("database or disk is full"))
INVALID = TuneFleetError(Reason.MODEL_INVALID, "not a model")
GROUP = GroupRecord(TARGET, FINGERPRINT, prepared_digest="4" * 64, untuned_digest="5" * 64)


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    """A coordinator with a campaign that has nothing left to tune."""
    monkeypatch.setattr(runner, "_AGAIN_AFTER_S", 0.01)
    home = Home(tmp_path)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    store.put_device(device("one"))
    store.create_campaign(campaign(groups=(GROUP,), trials_wanted=0), "")
    store.add_tasks("c-1", [task()])
    yield Core(home, store, BlobStore(home.blobs_dir), Bus())
    store.close()


async def outcome(core: Core, monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> Any:
    """Have looking at the tasks fail so often; return the campaign when it has left tuning."""
    to_come = list(failures)
    working = core.store.task_progress

    def task_progress(campaign_id: str) -> Any:
        if to_come:
            raise to_come.pop(0)
        return working(campaign_id)

    monkeypatch.setattr(core.store, "task_progress", task_progress)
    running = asyncio.create_task(wire(core).background[0]())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while core.store.get_campaign("c-1").state is CampaignState.TUNING:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return core.store.get_campaign("c-1")


def fill(core: Core, looks: int) -> None:
    """Fill the disk until somebody has looked so often whether it is."""
    left = itertools.chain([0] * looks, itertools.repeat(LEAST_FREE_BYTES))
    core.disk.free_bytes = lambda _: next(left)


@pytest.mark.parametrize("failure", [NO_SPACE, JOB_FAILED, DATABASE_FULL])
async def test_what_a_full_disk_fails_is_done_again_once_there_is_room(
    core: Core, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    fill(core, looks=10)
    ended = await outcome(core, monkeypatch, failure)
    assert ended.tuning_ended == "all trials were made"
    assert core.disk.free_bytes(core.home.root) == LEAST_FREE_BYTES


async def test_what_fails_again_with_room_on_the_disk_has_failed(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(core, looks=10)
    ended = await outcome(core, monkeypatch, JOB_FAILED, JOB_FAILED)
    assert ended.state is CampaignState.FAILED


async def test_a_database_that_is_away_fails_no_campaign(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await outcome(core, monkeypatch, DATABASE_FULL, DATABASE_FULL)
    assert ended.tuning_ended == "all trials were made"


async def test_with_room_on_the_disk_the_same_failure_is_one(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await outcome(core, monkeypatch, JOB_FAILED)
    assert (ended.state, ended.error_message) == (CampaignState.FAILED, JOB_FAILED.message)


async def test_what_a_person_must_mend_fails_at_once(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.disk.free_bytes = lambda _: 0
    ended = await outcome(core, monkeypatch, INVALID)
    assert (ended.state, ended.error_reason) == (CampaignState.FAILED, "MODEL_INVALID")
