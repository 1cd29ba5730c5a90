"""Writes a dataset's tables, row group by row group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.dataset.schema import DEVICE_COLUMNS, TRIAL_COLUMNS, WORKLOAD_COLUMNS, About
from coordinator.state.trial_records import ProfileRecord, TrialRecord, WorkloadRecord
from tunefleet.machine_lock import MachineLock

ROW_GROUP_TRIALS = 1024
"""Some 10 MB of features and traces: a second's work, and what a reader holds at the least."""

_WORKLOADS_AT_ONCE = 64
"""A large network's largest operators have modules of a megabyte."""

_COMPRESSION_LEVEL = 19
_PAGE_BYTES = 8 * 2**20
"""Zstandard finds what rows share within a page only: the usual 1 MiB costs a sixth more."""

_REPEATING = [
    *("workload", "task", "sources", "target", "fingerprint", "device_id", "device_profile"),
    *("verdict", "error", "conditions", "model_version", "campaign_id", "lease_id"),
]


class TableWriter:
    """One table on its way to disk; use it in a ``with``."""

    def __init__(
        self,
        path: Path,
        schema: Any,
        metadata: Mapping[str, str],
        repeating: Sequence[str],
        rows: int,
    ) -> None:
        """Begin a file.

        Args:
            path: a file there is replaced.
            schema: columns.
            metadata: what the file says of itself.
            repeating: columns in which few values come again and again.
            rows: of a row group.
        """
        self._schema = schema
        self._rows = rows
        self._waiting: list[Mapping[str, Any]] = []
        self._lock = MachineLock()
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=list(repeating),
            data_page_size=_PAGE_BYTES,
            # Anybody's reader makes sense of the columns without Arrow's copy of the schema.
            store_schema=False,
            write_page_checksum=True,
        )
        # Written here, since the schema's own goes with Arrow's copy.
        self._writer.add_key_value_metadata(dict(metadata))
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row with a value for each column."""
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) >= self._rows:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        with self._lock.busy():
            columns = [
                _array([row[field.name] for row in self._waiting], field.type)
                for field in self._schema
            ]
            self._waiting.clear()
            self._writer.write_batch(pa.record_batch(columns, schema=self._schema))

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, unless something went wrong."""
        try:
            if error is None:
                self._flush()
        finally:
            self._writer.close()


def trials_writer(path: Path, about: About) -> TableWriter:
    """Begin a table of trials."""
    return TableWriter(path, TRIAL_COLUMNS, about.metadata("trials"), _REPEATING, ROW_GROUP_TRIALS)


def trial_row(record: TrialRecord, profile: str, *, features: bool = True) -> dict[str, Any]:
    """Make a row of a trial.

    Args:
        record: the trial.
        profile: JSON of the device as it was then; empty where it is not known.
        features: leave them out where false.
    """
    trial = record.trial
    kept = trial.features.data if features and trial.features is not None else None
    return {
        "trial_id": trial.trial_id,
        "workload": record.key.workload,
        "task": record.task,
        "sources": _json(record.sources),
        "target": record.key.target,
        "fingerprint": record.key.fingerprint,
        "device_id": record.device_id,
        "device_profile": profile,
        "candidate": trial.candidate,
        "trace": trial.trace,
        "features": kept,
        "verdict": str(trial.verdict),
        "samples_s": trial.samples_s,
        "error": trial.error,
        "conditions": _json({k: v for k, v in asdict(trial.conditions).items() if v is not None}),
        "build_s": trial.build_s,
        "run_s": trial.run_s,
        "started_at_unix_s": trial.started_at_unix_s,
        "predicted": trial.predicted,
        "explored": trial.explored,
        "model_version": trial.model_version,
        "campaign_id": record.campaign_id,
        "lease_id": trial.lease_id,
    }


def write_workloads(
    path: Path, about: About, workloads: Iterable[tuple[WorkloadRecord, str | None]]
) -> int:
    """Write workloads, each with its module as TVM's JSON; returns how many."""
    metadata = about.metadata("workloads")
    with TableWriter(path, WORKLOAD_COLUMNS, metadata, (), _WORKLOADS_AT_ONCE) as table:
        for record, module in workloads:
            table.add(
                {
                    "workload": record.workload,
                    "name": record.name,
                    "flops": record.flops,
                    "sources": _json(record.sources),
                    "module": module,
                }
            )
    return table.rows


def write_devices(path: Path, about: About, profiles: Iterable[ProfileRecord]) -> int:
    """Write what devices were; returns how many rows."""
    metadata = about.metadata("devices")
    with TableWriter(path, DEVICE_COLUMNS, metadata, (), _WORKLOADS_AT_ONCE) as table:
        for record in profiles:
            table.add(
                {
                    "device_id": record.device_id,
                    "name": record.name,
                    "fingerprint": record.profile.fingerprint(),
                    "profile": record.profile.to_json(),
                }
            )
    return table.rows


def _array(values: Sequence[Any], kind: Any) -> Any:
    if kind != pa.list_(pa.float32()):
        return pa.array(values, kind)
    # Straight from the bytes, so that every bit stays as it is.
    lengths = [0 if value is None else len(value) // 4 for value in values]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    flat = np.frombuffer(b"".join(value or b"" for value in values), "<f4")
    missing = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=missing)


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
