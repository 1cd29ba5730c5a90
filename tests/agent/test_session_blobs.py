"""Blobs are fetched once, checked, taken up where a transfer broke, and bounded in space."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from in_memory_coordinator import InMemoryCoordinator
from session_rig import QUICK, open_rig

from agent.session.blobs import BlobCache
from tunefleet.errors import Reason, TuneFleetError

_CONTENT = random.Random(1).randbytes(10_500)


@pytest.fixture
async def server() -> AsyncIterator[InMemoryCoordinator]:
    server = InMemoryCoordinator()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def cache(server: InMemoryCoordinator, tmp_path: Path) -> AsyncIterator[BlobCache]:
    async with open_rig(server, tmp_path) as rig:
        yield BlobCache(tmp_path / "blobs", rig.coordinator, QUICK, limit_bytes=25_000)


async def test_a_blob_arrives_whole(server: InMemoryCoordinator, cache: BlobCache) -> None:
    digest = server.put_blob(_CONTENT)
    paths = await cache.fetch([digest])
    assert paths[digest].read_bytes() == _CONTENT


async def test_an_empty_blob_arrives(server: InMemoryCoordinator, cache: BlobCache) -> None:
    digest = server.put_blob(b"")
    paths = await cache.fetch([digest])
    assert paths[digest].read_bytes() == b""


async def test_no_digest_is_no_blob(cache: BlobCache) -> None:
    assert await cache.fetch([""]) == {}


async def test_a_blob_is_fetched_once(server: InMemoryCoordinator, cache: BlobCache) -> None:
    digest = server.put_blob(_CONTENT)
    await cache.fetch([digest])
    await cache.fetch([digest])
    assert server.blob_offsets == [0]


async def test_a_broken_transfer_goes_on_where_it_ended(
    server: InMemoryCoordinator, cache: BlobCache
) -> None:
    digest = server.put_blob(_CONTENT)
    server.break_blob_after = 4000
    paths = await cache.fetch([digest])
    assert server.blob_offsets == [0, 4000]
    assert paths[digest].read_bytes() == _CONTENT


async def test_a_transfer_goes_on_after_a_restart_of_the_agent(
    server: InMemoryCoordinator, cache: BlobCache, tmp_path: Path
) -> None:
    digest = server.put_blob(_CONTENT)
    (tmp_path / "blobs" / f"{digest}.part").write_bytes(_CONTENT[:700])
    paths = await cache.fetch([digest])
    assert server.blob_offsets == [700]
    assert paths[digest].read_bytes() == _CONTENT


@pytest.mark.parametrize("rubbish", [b"x" * 700, b"x" * 20_000])
async def test_rubbish_from_an_earlier_transfer_is_fetched_anew(
    server: InMemoryCoordinator, cache: BlobCache, tmp_path: Path, rubbish: bytes
) -> None:
    digest = server.put_blob(_CONTENT)
    (tmp_path / "blobs" / f"{digest}.part").write_bytes(rubbish)
    paths = await cache.fetch([digest])
    assert paths[digest].read_bytes() == _CONTENT


async def test_wrong_content_is_refused(
    server: InMemoryCoordinator, cache: BlobCache, tmp_path: Path
) -> None:
    digest = server.put_blob(_CONTENT)
    server.blobs[digest] = _CONTENT[::-1]
    with pytest.raises(TuneFleetError) as raised:
        await cache.fetch([digest])
    assert raised.value.reason is Reason.BLOB_CORRUPT
    assert list((tmp_path / "blobs").iterdir()) == []


@pytest.mark.parametrize("digest", ["0" * 64, "../../etc/passwd"])
async def test_what_the_coordinator_does_not_have_is_an_error(
    cache: BlobCache, digest: str
) -> None:
    with pytest.raises(TuneFleetError) as raised:
        await cache.fetch([digest])
    assert raised.value.reason is Reason.BLOB_UNKNOWN


async def test_the_least_recently_used_blob_makes_room(
    server: InMemoryCoordinator, cache: BlobCache
) -> None:
    old, used, new = (server.put_blob(_CONTENT + bytes([number])) for number in range(3))
    paths = await cache.fetch([old, used])
    for age, digest in enumerate([used, old]):
        os.utime(paths[digest], (1000 + age, 1000 + age))
    await cache.fetch([used])
    paths |= await cache.fetch([new])
    assert [paths[d].exists() for d in (old, used, new)] == [False, True, True]


async def test_blobs_in_use_stay_beyond_the_limit(
    server: InMemoryCoordinator, cache: BlobCache
) -> None:
    paths = await cache.fetch([server.put_blob(_CONTENT + bytes([n])) for n in range(3)])
    assert all(path.exists() for path in paths.values())
