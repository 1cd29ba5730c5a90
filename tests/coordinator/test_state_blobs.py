from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from coordinator.state.blobs import BlobStore
from tunefleet.errors import Reason, TuneFleetError

CONTENT = b"some bytes"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_blob_is_named_by_its_content(blobs: BlobStore) -> None:
    assert blobs.put(CONTENT) == DIGEST
    assert blobs.has(DIGEST)
    assert blobs.read(DIGEST, verify=True) == CONTENT
    assert blobs.size(DIGEST) == len(CONTENT)
    with blobs.reader(DIGEST) as opened:
        assert opened.read() == CONTENT


def test_a_file_is_copied_in(blobs: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    source.write_bytes(CONTENT)
    assert blobs.put_file(source) == DIGEST
    source.write_bytes(b"changed")
    assert blobs.path(DIGEST).read_bytes() == CONTENT


def test_the_same_content_is_stored_once(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(CONTENT)
    blobs.put(CONTENT)
    assert files_below(tmp_path) == [blobs.path(DIGEST)]


def test_an_unknown_blob_is_refused(blobs: BlobStore) -> None:
    assert not blobs.has(DIGEST)
    with pytest.raises(TuneFleetError) as raised:
        blobs.path(DIGEST)
    assert raised.value.reason is Reason.BLOB_UNKNOWN


@pytest.mark.parametrize(
    "name",
    ["", "../../etc/passwd", "../" * 20 + "a" * 4, DIGEST.upper(), DIGEST[:-1], DIGEST + "\n"],
)
def test_only_digests_name_blobs(blobs: BlobStore, name: str) -> None:
    with pytest.raises(TuneFleetError) as raised:
        blobs.path(name)
    assert raised.value.reason is Reason.INVALID_ARGUMENT


def test_chunks_with_another_digest_leave_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.writer() as writer:
        writer.write(b"other bytes")
        with pytest.raises(TuneFleetError) as raised:
            writer.commit(DIGEST)
    assert raised.value.reason is Reason.BLOB_CORRUPT
    assert files_below(tmp_path) == []


def test_a_transfer_that_broke_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.writer() as writer:
        writer.write(CONTENT)
    assert files_below(tmp_path) == []


def test_a_spoiled_blob_is_noticed_and_healed_by_sending_it_again(blobs: BlobStore) -> None:
    blobs.put(CONTENT)
    spoiled = blobs.path(DIGEST)
    spoiled.chmod(0o644)
    spoiled.write_bytes(b"spoiled")
    with pytest.raises(TuneFleetError) as raised:
        blobs.read(DIGEST, verify=True)
    assert raised.value.reason is Reason.BLOB_CORRUPT
    blobs.put(CONTENT)
    assert blobs.read(DIGEST, verify=True) == CONTENT


def test_leftovers_of_a_killed_process_are_removed(blobs: BlobStore, tmp_path: Path) -> None:
    blobs.put(CONTENT)
    writer = blobs.writer()
    writer.write(b"half of")
    blobs.remove_leftovers()
    assert files_below(tmp_path) == [blobs.path(DIGEST)]
