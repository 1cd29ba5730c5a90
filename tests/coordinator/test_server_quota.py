"""Uploads have a limit, and what nobody uses does not stay."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from server_harness import Server, failure_of, running_server
from store_samples import OTHER_KEY, campaign, device, lease, model, task

from coordinator.server.cleaning import Cleaning
from coordinator.server.quota import DEFAULT_QUOTA, BlobQuota, Quota
from coordinator.state.blobs import BlobStore
from coordinator.state.records import ArtifactRecord, GroupRecord
from coordinator.state.store import Store
from coordinator.state.uploads import KEPT_S, Uploads
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import blob_service_pb2 as pb
from tunefleet.v1 import user_service_pb2, user_service_pb2_grpc

KIB = 1024
CONTENT = bytes(3 * KIB)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with running_server(tmp_path) as started:
        yield started


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def uploads(tmp_path: Path, blobs: BlobStore) -> Uploads:
    (tmp_path / "uploads").mkdir()
    return Uploads(tmp_path / "uploads", blobs)


async def send(server: Server, content: bytes) -> pb.PutBlobResponse:
    async def chunks() -> AsyncIterator[pb.PutBlobRequest]:
        digest = hashlib.sha256(content).hexdigest()
        for start in range(0, len(content), KIB):
            chunk = content[start : start + KIB]
            yield pb.PutBlobRequest(digest="" if start else digest, chunk=chunk)

    answer: pb.PutBlobResponse = await server.blobs.PutBlob(chunks())
    return answer


def is_named(digest: str) -> bool:
    return False


class TestQuota:
    @pytest.mark.parametrize(
        ("text", "on_a_disk_of_1000"),
        [("none", 0), ("100", 100), ("2kB", 2048), ("1.5 GiB", 3 * 2**29), ("25%", 250)],
    )
    def test_it_is_a_size_a_share_or_none(self, text: str, on_a_disk_of_1000: int) -> None:
        assert Quota.parse(text).on(1000) == on_a_disk_of_1000

    @pytest.mark.parametrize("text", ["", "lots", "-5GB", "0", "0%", "101%", "5 PB"])
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="neither a size"):
            Quota.parse(text)

    def test_there_is_one_by_default(self) -> None:
        assert Quota.parse(DEFAULT_QUOTA).on(1000) == 500

    def test_uploads_beyond_it_are_refused_and_leave_nothing(self, blobs: BlobStore) -> None:
        quota = BlobQuota(blobs, Quota(limit_bytes=5))
        with quota.upload() as first:
            first(3)
            with pytest.raises(TuneFleetError) as raised, quota.upload() as second:
                second(3)
            assert raised.value.reason is Reason.BLOB_QUOTA
            with quota.upload() as third:
                third(2)

    def test_files_that_others_made_count_after_a_while(self, blobs: BlobStore) -> None:
        now = [0.0]
        quota = BlobQuota(blobs, Quota(limit_bytes=5), lambda: now[0])
        assert quota.used_bytes() == 0
        blobs.put(b"four")
        now[0] += 60
        assert quota.used_bytes() == 4

    async def test_an_upload_over_the_quota_is_refused_over_the_wire(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.core.quota, "limit_bytes", 2 * KIB)
        failure = await failure_of(send(server, CONTENT))
        assert failure.reason == "BLOB_QUOTA"
        assert not server.core.blobs.has(DIGEST)
        await send(server, CONTENT[:KIB])
        stub = user_service_pb2_grpc.CoordinatorServiceStub(server.channel)
        asked = await stub.GetCoordinator(user_service_pb2.GetCoordinatorRequest())  # type: ignore[misc]
        assert asked.coordinator.blob_bytes == KIB
        assert asked.coordinator.blob_quota_bytes == 2 * KIB


class TestUploads:
    def test_what_nothing_names_goes_after_a_day(self, uploads: Uploads, blobs: BlobStore) -> None:
        uploads.note(DIGEST)
        blobs.put(CONTENT)
        assert uploads.collect(is_named) == []
        assert uploads.collect(is_named, time.time() + KEPT_S + 1) == [DIGEST]
        assert not blobs.has(DIGEST)
        assert uploads.collect(is_named, time.time() + 2 * KEPT_S) == []

    def test_what_something_names_stays_for_good(self, uploads: Uploads, blobs: BlobStore) -> None:
        uploads.note(DIGEST)
        blobs.put(CONTENT)
        assert uploads.collect(lambda _: True, time.time() + KEPT_S + 1) == []
        assert uploads.collect(is_named, time.time() + 9 * KEPT_S) == []
        assert blobs.has(DIGEST)

    def test_asking_whether_it_is_there_keeps_it_for_another_day(
        self, uploads: Uploads, blobs: BlobStore, tmp_path: Path
    ) -> None:
        uploads.note(DIGEST)
        blobs.put(CONTENT)
        os.utime(tmp_path / "uploads" / DIGEST, (0, 0))
        assert uploads.has_sound(DIGEST)
        assert uploads.collect(is_named) == []

    def test_asking_again_and_again_reads_it_once_until_its_file_changes(
        self, uploads: Uploads, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reads: list[str] = []
        read = blobs.is_sound

        def counted(digest: str) -> bool:
            reads.append(digest)
            return read(digest)

        monkeypatch.setattr(blobs, "is_sound", counted)
        blobs.put(CONTENT)
        assert all(uploads.has_sound(DIGEST) for _ in range(3))
        assert len(reads) == 1
        path = blobs.path(DIGEST)
        path.chmod(0o644)
        path.write_bytes(b"!" + CONTENT[1:])
        assert not uploads.has_sound(DIGEST)

    def test_what_the_coordinator_made_is_never_collected(
        self, uploads: Uploads, blobs: BlobStore
    ) -> None:
        blobs.put(CONTENT)
        assert uploads.has_sound(DIGEST)
        assert uploads.collect(is_named, time.time() + 9 * KEPT_S) == []
        assert blobs.has(DIGEST)

    async def test_a_blob_that_was_sent_is_cleaned_away(self, server: Server) -> None:
        await send(server, CONTENT)
        os.utime(server.core.home.uploads_dir / DIGEST, (0, 0))
        cleaning = asyncio.create_task(
            Cleaning(server.core.store, server.core.uploads, interval_s=0.01).run()
        )
        while server.core.blobs.has(DIGEST):
            await asyncio.sleep(0.01)
        cleaning.cancel()
        missing = await server.blobs.FindMissingBlobs(pb.FindMissingBlobsRequest(digests=[DIGEST]))
        assert list(missing.digests) == [DIGEST]


class TestReferences:
    @pytest.mark.parametrize(
        "changes",
        [
            {"spec": replace(campaign().spec, model_digest=DIGEST)},
            {"groups": (GroupRecord("t", "f", "", "", compiled={"tuned": DIGEST}),)},
            {"artifacts": (ArtifactRecord("tuned.so", DIGEST, 1),)},
            {"inputs_digest": DIGEST},
        ],
    )
    def test_campaigns_name_blobs(self, store: Store, changes: dict[str, object]) -> None:
        store.create_campaign(campaign(), "")
        assert not store.names_blob(DIGEST)
        store.create_campaign(campaign("c-2", **changes), "")
        assert store.names_blob(DIGEST)

    def test_tasks_models_and_active_leases_name_blobs(self, store: Store) -> None:
        store.put_device(device())
        store.create_campaign(campaign(), "")
        digests = ["a" * 64, "b" * 64, "c" * 64]
        store.add_tasks("c-1", [replace(task(OTHER_KEY), workload_digest=digests[0])])
        store.add_model_version(replace(model("v1"), checkpoint_digest=digests[1]))
        store.grant_lease(replace(lease(), message=b"\x0a\x40" + digests[2].encode()))
        assert all(store.names_blob(digest) for digest in digests)
        assert not store.names_blob("d" * 64)
