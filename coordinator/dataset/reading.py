"""Reads a dataset's tables, whoever wrote them: checked, in bounded memory, nothing unpickled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.dataset import checks
from coordinator.dataset.schema import (
    DEVICE_COLUMNS,
    DEVICES_FILE,
    TRIAL_COLUMNS,
    TRIALS_FILE,
    WORKLOAD_COLUMNS,
    WORKLOADS_FILE,
    About,
    invalid,
)
from coordinator.state.trial_records import ProfileRecord, TrialRecord, WorkloadRecord
from tunefleet.devices import DeviceProfile
from tunefleet.machine_lock import MachineLock

MAX_ROWS = 20_000_000
"""Five hundred times the first collection, and a day's import."""

_MAX_ROW_GROUP_BYTES = 2**30
"""What a reader may have to hold at a time; ours hold a hundredth of it."""

_BATCH_ROWS = 256
_THRIFT_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class Refused:
    """A row that cannot be used."""

    name: str
    """The trial's, or the row's number."""
    why: str


@dataclass(frozen=True)
class Parts:
    """Where a dataset's tables lie; only trials there must be."""

    trials: tuple[Path, ...]
    workloads: Path | None = None
    devices: Path | None = None


def find_parts(place: Path) -> Parts:
    """Find the tables of a folder, or take a file as one of trials.

    Raises:
        TuneFleetError: DATASET_INVALID, there is none.
    """
    if place.is_file():
        return Parts((place,))
    workloads, devices = place / WORKLOADS_FILE, place / DEVICES_FILE
    trials = tuple(sorted(set(place.glob("*.parquet")) - {workloads, devices}))
    if not trials:
        raise invalid(f"{place} is no dataset: it holds no {TRIALS_FILE}")
    return Parts(
        trials,
        workloads if workloads.is_file() else None,
        devices if devices.is_file() else None,
    )


class Table:
    """One table of a dataset."""

    def __init__(self, path: Path, columns: Any, table: str) -> None:
        """Open a file and check what it says of itself.

        Raises:
            TuneFleetError: DATASET_INVALID.
        """
        self._path = path
        self._columns = columns
        try:
            self._file = pq.ParquetFile(
                path,
                page_checksum_verification=True,
                arrow_extensions_enabled=False,
                thrift_string_size_limit=_THRIFT_LIMIT,
                thrift_container_size_limit=_THRIFT_LIMIT,
            )
            schema = self._file.schema_arrow
        except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
            raise invalid(
                f"{path.name} is not a whole Parquet file ({_first_line(e)}); copy it again"
            ) from e
        self.about = About.read(self._file.metadata.metadata, table, path.name)
        self._check(schema)
        self.rows = int(self._file.metadata.num_rows)

    def _check(self, schema: Any) -> None:
        for field in self._columns:
            index = schema.get_field_index(field.name)
            if index < 0:
                raise invalid(f"{self._path.name} has no column {field.name}, or has it twice")
            if schema.field(index).type != field.type:
                raise invalid(
                    f"{self._path.name} has {schema.field(index).type} in the column {field.name}, "
                    f"not {field.type}"
                )
        metadata = self._file.metadata
        if metadata.num_rows > MAX_ROWS:
            raise invalid(
                f"{self._path.name} has {metadata.num_rows} rows, {MAX_ROWS} are the most"
            )
        for number in range(metadata.num_row_groups):
            size = metadata.row_group(number).total_byte_size
            if size > _MAX_ROW_GROUP_BYTES:
                raise invalid(
                    f"{self._path.name} has {size} bytes in its row group {number}, "
                    f"{_MAX_ROW_GROUP_BYTES} are the most; write it in smaller ones"
                )

    def batches(self, columns: Sequence[str] = ()) -> Iterator[Any]:
        """Yield record batches of the table's columns, or of some of them.

        Raises:
            TuneFleetError: DATASET_INVALID, the file is damaged.
        """
        wanted = list(columns) or self._columns.names
        try:
            yield from self._file.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
            raise invalid(f"{self._path.name} is damaged: {_first_line(e)}") from e


def open_trials(path: Path) -> Table:
    """Open a table of trials. Raises DATASET_INVALID."""
    return Table(path, TRIAL_COLUMNS, "trials")


def read_trials(
    table: Table, *, features: bool = True
) -> Iterator[list[tuple[TrialRecord, str] | Refused]]:
    """Yield a table's trials, some hundred at a time.

    Args:
        table: to read.
        features: leave them out where false.

    Yields:
        For each row the trial and its device's profile as JSON, or why it cannot be used.
    """
    plain = [name for name in TRIAL_COLUMNS.names if name != "features"]
    number = 0
    for batch in table.batches(TRIAL_COLUMNS.names if features else plain):
        rows = _plain_rows(batch.select(plain), number)
        data = _feature_bytes(batch["features"]) if features else [None] * len(rows)
        yield [_checked(row, number + i, data[i]) for i, row in enumerate(rows)]
        number += len(rows)


def read_all(
    tables: Sequence[Table],
    progress: Callable[[float, str], None] | None = None,
    *,
    features: bool = True,
) -> Iterator[tuple[TrialRecord, str] | Refused]:
    """Yield the rows of several tables, as :func:`read_trials` does, one by one.

    Rows are read while nothing is being timed on this machine: the lock must not be held already.

    Args:
        tables: to read, in this order.
        progress: told the share of the rows that were read and what is being done.
        features: leave them out where false.
    """
    lock = MachineLock()
    total, seen = sum(table.rows for table in tables), 0
    for table in tables:
        batches = read_trials(table, features=features)
        while True:
            with lock.busy():
                batch = next(batches, None)
            if batch is None:
                break
            yield from batch
            seen += len(batch)
            if progress is not None:
                progress(seen / total, f"reading trials, {seen} of {total}")


def read_workloads(path: Path) -> Iterator[tuple[WorkloadRecord, str | None]]:
    """Yield workloads, without digests, and their modules as TVM's JSON.

    Raises:
        TuneFleetError: DATASET_INVALID.
    """
    for batch in Table(path, WORKLOAD_COLUMNS, "workloads").batches():
        for row in batch.to_pylist():
            try:
                yield _workload(row), _module(row)
            except ValueError as e:
                raise invalid(f"{path.name} has a workload that cannot be used: {e}") from e


def read_devices(path: Path) -> Iterator[ProfileRecord]:
    """Yield what devices were. Raises DATASET_INVALID."""
    for batch in Table(path, DEVICE_COLUMNS, "devices").batches():
        for row in batch.to_pylist():
            try:
                yield _profile(row)
            except ValueError as e:
                raise invalid(f"{path.name} has a device that cannot be used: {e}") from e


def _checked(
    row: Mapping[str, Any] | Refused, number: int, features: bytes | None
) -> tuple[TrialRecord, str] | Refused:
    if isinstance(row, Refused):
        return row
    try:
        return checks.read_trial(row, features)
    except (ValueError, OverflowError) as e:
        name = row["trial_id"]
        usable = isinstance(name, str) and len(name) <= 64 and name.isprintable() and name
        return Refused(str(name) if usable else f"row {number}", str(e))


def _plain_rows(batch: Any, first: int) -> list[Any]:
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        pass
    # Parquet does not promise that its texts are UTF-8: one by one, for the others' sake.
    rows: list[Any] = []
    for index in range(batch.num_rows):
        try:
            rows += batch.slice(index, 1).to_pylist()
        except UnicodeDecodeError as e:
            rows.append(Refused(f"row {first + index}", f"a text is not UTF-8: {e}"))
    return rows


def _feature_bytes(column: Any) -> list[bytes | None]:
    """Return the bytes of each list of float32 values, as they are in the file."""
    values = column.values
    if values.null_count:
        return [None if item is None else _listed_bytes(item) for item in column.to_pylist()]
    raw = memoryview(values.buffers()[1] or b"")
    offsets = column.offsets.to_pylist()
    begin = values.offset
    valid = column.is_valid().to_pylist()
    return [
        bytes(raw[4 * (begin + offsets[i]) : 4 * (begin + offsets[i + 1])]) if valid[i] else None
        for i in range(len(column))
    ]


def _listed_bytes(values: Sequence[float | None]) -> bytes:
    # A value that is absent makes a length that no check lets through.
    return b"\0" if None in values else np.array(values, "<f4").tobytes()


def _workload(row: Mapping[str, Any]) -> WorkloadRecord:
    flops = row["flops"]
    if flops is None or not 0 <= flops < float("inf"):
        raise ValueError(f"flops is {flops}")
    return WorkloadRecord(
        workload=checks.hashed(row, "workload"),
        digest="",
        name=checks.text(row, "name"),
        flops=flops,
        sources=checks.read_sources(checks.text(row, "sources")),
    )


def _module(row: Mapping[str, Any]) -> str | None:
    module = row["module"]
    if module is not None and len(module) > checks.MAX_MODULE_CHARS:
        raise ValueError(f"the module has {len(module)} characters")
    return None if module is None else str(module)


def _profile(row: Mapping[str, Any]) -> ProfileRecord:
    profile = checks.text(row, "profile")
    if checks.profile_fingerprint(profile) != row["fingerprint"]:
        raise ValueError("the fingerprint is not that of the profile")
    shown = checks.text(row, "name")
    if not shown.isprintable() or not shown or "," in shown or len(shown) > 200:
        raise ValueError(f"the name {shown[:80]!r} should be short, printable and without commas")
    return ProfileRecord(checks.name(row, "device_id"), shown, DeviceProfile.from_json(profile))


def describe(parts: Parts) -> dict[str, Any]:
    """Return what a dataset's trials say of themselves, and whether the other tables are there."""
    about = open_trials(parts.trials[0]).about
    return {
        "licence": about.licence,
        "description": about.description,
        "feature_schema": about.feature_schema,
        "created_unix_s": about.created_unix_s,
        "release": about.release,
        "has_workloads": parts.workloads is not None,
        "has_devices": parts.devices is not None,
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
