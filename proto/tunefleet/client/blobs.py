"""Moves files to and from a coordinator, by digest and in chunks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import grpc
import stamina

from tunefleet.client.connection import Connection
from tunefleet.client.repeating import repeatable
from tunefleet.client.values import Artifact
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import blob_service_pb2, blob_service_pb2_grpc

CHUNK_BYTES = 2**20
"""Well under gRPC's default limit of 4 MiB a message."""
SLOWEST_BYTES_PER_S = 256 * 1024
"""Slowest link that a transfer's deadline allows for: an uplink of 2 Mbit/s."""
TRANSFER_DEADLINE_S = 60.0
"""Deadline of a transfer beside what its bytes take."""
MODEL_LIMIT_BYTES = 2**31
"""A protobuf, and so an ONNX file, cannot be larger."""
DOWNLOAD_ATTEMPTS = 8
"""Each takes up the transfer where the one before broke off."""

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""


def check_model_file(path: Path) -> None:
    """Refuse what cannot be a model before anything is sent.

    Raises:
        TuneFleetError: MODEL_INVALID.
    """
    if not path.exists():
        raise TuneFleetError(
            Reason.MODEL_INVALID, f"{path}: there is no such file", hint="Check the path."
        )
    if not path.is_file():
        raise TuneFleetError(Reason.MODEL_INVALID, f"{path} is not a file")
    size = path.stat().st_size
    if size == 0:
        raise TuneFleetError(Reason.MODEL_INVALID, f"{path} is empty")
    if size >= MODEL_LIMIT_BYTES:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"{path} has {size / 2**30:.1f} GiB; 2 GiB is the most that a model file can have",
        )
    if not os.access(path, os.R_OK):
        raise TuneFleetError(
            Reason.MODEL_INVALID, f"{path} cannot be read", hint="Check its permissions."
        )


def file_digest(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload(connection: Connection, path: Path, progress: Progress | None = None) -> str:
    """Store a file as a blob, unless the coordinator has it.

    Returns:
        Its SHA-256 in hex.

    Raises:
        TuneFleetError: the reason that the coordinator gave.
    """
    stub = blob_service_pb2_grpc.BlobServiceStub(connection.channel)
    digest, size = file_digest(path), path.stat().st_size
    missing = connection.call(
        stub.FindMissingBlobs, blob_service_pb2.FindMissingBlobsRequest(digests=[digest])
    )
    if digest in missing.digests:
        connection.retried(
            lambda: stub.PutBlob(_chunks(path, digest, progress), timeout=_deadline_s(size))
        )
    if progress is not None:
        progress(size, size)
    return digest


def download(
    connection: Connection,
    artifacts: tuple[Artifact, ...],
    folder: Path,
    progress: Progress | None = None,
) -> list[Path]:
    """Fetch artifacts into a folder. Files that are there already and right are left alone.

    Returns:
        Their paths, in the artifacts' order.

    Raises:
        TuneFleetError: BLOB_CORRUPT, a path leads out of the folder or a file does not have the
            digest that it should; or the reason that the coordinator gave.
    """
    paths = [_path_within(folder, artifact.path) for artifact in artifacts]
    total, done = sum(a.size_bytes for a in artifacts), 0
    for artifact, path in zip(artifacts, paths, strict=True):
        if not path.is_file() or file_digest(path) != artifact.digest:
            path.parent.mkdir(parents=True, exist_ok=True)
            _fetch(connection, artifact, path)
        done += artifact.size_bytes
        if progress is not None:
            progress(done, total)
    return paths


def _path_within(folder: Path, relative: str) -> Path:
    """Place an artifact's path in a folder, which what a coordinator sends may not leave."""
    parts = PurePosixPath(relative).parts
    path = folder.joinpath(*parts)
    plain = bool(parts) and not relative.startswith("/") and ".." not in parts
    if not plain or any(c in relative for c in "\\\0:") or not _stays_in(path, folder):
        raise TuneFleetError(
            Reason.BLOB_CORRUPT,
            f"the artifact path {relative!r} leads out of the result folder",
            hint="Do not use this coordinator's results.",
        )
    return path


def _stays_in(path: Path, folder: Path) -> bool:
    # Resolving also follows links that lie in the folder already.
    return path.resolve().is_relative_to(folder.resolve())


def _fetch(connection: Connection, artifact: Artifact, path: Path) -> None:
    stub = blob_service_pb2_grpc.BlobServiceStub(connection.channel)
    partial = path.with_name(path.name + ".part")
    hasher = hashlib.sha256()
    received = 0
    try:
        with partial.open("wb") as file:
            for attempt in stamina.retry_context(on=repeatable, attempts=DOWNLOAD_ATTEMPTS):
                with attempt:
                    request = blob_service_pb2.GetBlobRequest(
                        digest=artifact.digest, offset=received
                    )
                    deadline_s = _deadline_s(artifact.size_bytes)
                    for response in stub.GetBlob(request, timeout=deadline_s):
                        file.write(response.chunk)
                        hasher.update(response.chunk)
                        received += len(response.chunk)
        if hasher.hexdigest() != artifact.digest:
            raise TuneFleetError(
                Reason.BLOB_CORRUPT, f"{artifact.path} does not have the digest that it should have"
            )
        partial.replace(path)
    except grpc.RpcError as e:
        raise connection.error(e, not_found=Reason.BLOB_UNKNOWN) from e
    finally:
        partial.unlink(missing_ok=True)


def _chunks(
    path: Path, digest: str, progress: Progress | None
) -> Iterator[blob_service_pb2.PutBlobRequest]:
    size, sent = path.stat().st_size, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield blob_service_pb2.PutBlobRequest(digest="" if sent else digest, chunk=chunk)
            sent += len(chunk)
            if progress is not None:
                progress(sent, size)


def _deadline_s(size_bytes: int) -> float:
    return TRANSFER_DEADLINE_S + size_bytes / SLOWEST_BYTES_PER_S
