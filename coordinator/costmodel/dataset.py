"""What a cost model learns from, and the file in which it reaches a training job.

The coordinator's main process writes these files, so this module needs neither numpy nor torch.

File format, all integers little-endian:

    magic      8 bytes, ``TFROWS2\\n``
    per row    u32 length of the header, header (a JSON object in UTF-8),
               then ``stores * 172`` float32 values
    end        u32 0xFFFFFFFF, u64 number of rows, u32 CRC-32 of every byte before it

A header holds every field of :class:`TrainingRow` but the features; NaN is written as null.
"""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE
from tunefleet.leases import BASELINE_TRACE
from tunefleet.schedules.row import schedule_row
from tunefleet.trials import Verdict

_MAGIC = b"TFROWS2\n"
_U32 = struct.Struct("<I")
_TRAILER = struct.Struct("<IQI")
_END = 0xFFFFFFFF
_MAX_HEADER_BYTES = 1 << 24
"""A header is a few KiB, its trace most of it; a larger length means that the file is damaged."""
_BYTES_PER_STORE = 4 * PROGRAM_FEATURES_PER_STORE
_MAX_STORES_READ = 1 << 16
_HELD_OUT_ONE_IN = 5


@dataclass(frozen=True)
class TrainingRow:
    """One trial as the cost model sees it."""

    workload: str
    target: str
    """Canonical target JSON."""
    device_fingerprint: str
    hardware: list[float]
    """``tunefleet.features.hardware_vector``: raw values, NaN where unknown."""
    candidate: str
    """Structural hash of the scheduled program in hex."""
    stores: int
    features: bytes = field(repr=False)
    """``stores`` rows of 172 little-endian float32 values."""
    latency_s: float | None
    """Median seconds per run; ``None`` for a trial that gave none."""
    noise: float
    """Standard deviation of the samples over their mean; NaN where it is not known."""
    verdict: Verdict
    trace: str = field(default=BASELINE_TRACE, repr=False)
    """Of the schedule, as JSON."""

    @cached_property
    def schedule(self) -> bytes:
        """Its schedule's row; see :func:`tunefleet.schedules.row.schedule_row`. Raises ValueError:
        the trace cannot be read."""
        return schedule_row(self.trace)

    @property
    def list_key(self) -> tuple[str, str, str]:
        """Name the ranking list: only rows of equal task and device may be compared."""
        return (self.workload, self.target, self.device_fingerprint)


def is_held_out(candidate: str) -> bool:
    """Tell whether a candidate is kept out of training for ever.

    Args:
        candidate: structural hash in hex. It alone decides, so that no later version of a model,
            on any device, is ever trained on what an earlier one was judged by.

    Raises:
        ValueError: the name is not hexadecimal.
    """
    return int(candidate, 16) % _HELD_OUT_ONE_IN == 0


def save(path: Path, rows: Iterable[TrainingRow]) -> int:
    """Write rows one by one; the file appears under its name only when complete.

    Args:
        path: where to write; a file there is replaced.
        rows: may be a generator: no more than one row is held in memory.

    Returns:
        The number of rows written.

    Raises:
        ValueError: a row's features or hardware vector have the wrong size.
    """
    partial = path.with_name(path.name + ".partial")
    count = 0
    with partial.open("wb") as raw:
        out = _ChecksumWriter(raw)
        out.write(_MAGIC)
        for row in rows:
            _check(row)
            header = _header(row)
            out.write(_U32.pack(len(header)) + header + row.features)
            count += 1
        raw.write(_TRAILER.pack(_END, count, out.crc))
    os.replace(partial, path)  # noqa: PTH105 - the atomicity of rename is the point
    return count


def load(path: Path) -> list[TrainingRow]:
    """Read what :func:`save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, incomplete or of another kind; the message says which.
    """
    with path.open("rb") as raw:
        try:
            return list(_read(_ChecksumReader(raw)))
        except _DamagedError as e:
            raise ValueError(f"cannot read training rows from {path}: {e}") from e


class _DamagedError(Exception):
    pass


class _ChecksumWriter:
    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.crc = 0

    def write(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self._raw.write(data)


class _ChecksumReader:
    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.crc = 0

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        if len(data) != size:
            raise _DamagedError("the file ends early; write it again")
        self.crc = zlib.crc32(data, self.crc)
        return data

    def read_trailer(self) -> tuple[int, int]:
        data = self._raw.read(_TRAILER.size - _U32.size)
        if len(data) != _TRAILER.size - _U32.size or self._raw.read(1):
            raise _DamagedError("its end is not where it should be; write it again")
        count, crc = struct.unpack("<QI", data)
        return count, crc


def _read(file: _ChecksumReader) -> Iterator[TrainingRow]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _DamagedError("it is not a file of training rows")
    count = 0
    while True:
        crc_before = file.crc
        (length,) = _U32.unpack(file.read(_U32.size))
        if length == _END:
            expected_count, expected_crc = file.read_trailer()
            if (count, crc_before) != (expected_count, expected_crc):
                raise _DamagedError("the checksum does not match; write it again")
            return
        if length > _MAX_HEADER_BYTES:
            raise _DamagedError(f"row {count} claims a header of {length} bytes")
        header = file.read(length)
        try:
            fields = json.loads(header)
            stores = int(fields["stores"])
            if not 0 <= stores < _MAX_STORES_READ:
                raise ValueError(f"{stores} stores")  # noqa: TRY301 - one kind of failure
            row = _row(fields, file.read(stores * _BYTES_PER_STORE))
            _check(row)
        except (ValueError, KeyError, TypeError) as e:
            raise _DamagedError(f"row {count} makes no sense: {e}") from e
        yield row
        count += 1


def _header(row: TrainingRow) -> bytes:
    fields = {
        "workload": row.workload,
        "target": row.target,
        "device": row.device_fingerprint,
        "hardware": [None if math.isnan(v) else v for v in row.hardware],
        "candidate": row.candidate,
        "stores": row.stores,
        "latency_s": row.latency_s,
        "noise": None if math.isnan(row.noise) else row.noise,
        "verdict": row.verdict.value,
        "trace": row.trace,
    }
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def _row(fields: dict[str, Any], features: bytes) -> TrainingRow:
    latency = fields["latency_s"]
    noise = fields["noise"]
    return TrainingRow(
        workload=str(fields["workload"]),
        target=str(fields["target"]),
        device_fingerprint=str(fields["device"]),
        hardware=[math.nan if v is None else float(v) for v in fields["hardware"]],
        candidate=str(fields["candidate"]),
        stores=int(fields["stores"]),
        features=features,
        latency_s=None if latency is None else float(latency),
        noise=math.nan if noise is None else float(noise),
        verdict=Verdict(fields["verdict"]),
        trace=str(fields["trace"]),
    )


def _check(row: TrainingRow) -> None:
    if row.stores < 0 or len(row.features) != row.stores * _BYTES_PER_STORE:
        raise ValueError(
            f"candidate {row.candidate}: {len(row.features)} bytes of features "
            f"for {row.stores} stores of {_BYTES_PER_STORE}"
        )
    if len(row.hardware) != len(HARDWARE_FEATURES):
        raise ValueError(
            f"candidate {row.candidate}: {len(row.hardware)} hardware values, "
            f"this release has {len(HARDWARE_FEATURES)}"
        )
    if row.latency_s is not None and not 0.0 < row.latency_s < math.inf:
        raise ValueError(f"candidate {row.candidate}: a latency of {row.latency_s} s")
    int(row.candidate, 16)
