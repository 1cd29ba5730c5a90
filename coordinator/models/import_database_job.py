"""The job that imports a MetaSchedule database: its records to stored trials.

Spec: as of :mod:`coordinator.dataset.import_job`, with ``"device_id"`` and ``"target"`` (the
database says neither for sure), and result likewise, with ``"trial_ids"``, the names that its
records have as trials. Features are left to an agent.

A database is two files of JSON lines. A workload is ``[hash, base64 of its module]``, a record
``[number of its workload, [trace, [seconds, ...] or null, target or null, arguments or null]]``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import Trace

from coordinator.confinement import DATASET_MEMORY_BYTES
from coordinator.dataset import checks
from coordinator.dataset.intake import Intake
from coordinator.dataset.schema import invalid
from coordinator.models.job import Progress, first_line, run_job
from coordinator.models.tasks import estimated_flops, workload_name
from coordinator.state.blobs import BlobStore
from coordinator.state.records import TaskKey
from coordinator.state.sql import open_store
from coordinator.state.trial_records import TrialRecord, WorkloadRecord
from tunefleet.errors import Reason
from tunefleet.leases import BASELINE_TRACE
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import Trial, Verdict

WORKLOADS = "database_workload.json"
RECORDS = "database_tuning_record.json"

_FAILED_S = 1e9
"""MetaSchedule notes 1e9 or 1e10 seconds for a candidate that could not be measured."""

_LARGEST_S = 1e12

_MAX_LINE_BYTES = 2 * checks.MAX_MODULE_CHARS
_MAX_WORKLOADS = 100_000
_BATCH = 64
_CPU_S = 8 * 3600
"""Applying a trace takes milliseconds, of which a million make hours."""


@dataclass(frozen=True)
class _Workload:
    name: str
    module: Any


def import_database(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: DATASET_INVALID, the files are no database, or a record is for another
            target than the one named.
    """
    files = {file["name"]: Path(file["path"]) for file in spec["files"]}
    if not {WORKLOADS, RECORDS} <= files.keys():
        raise invalid(f"a MetaSchedule database consists of {WORKLOADS} and {RECORDS}")
    target = str(spec["target"])
    progress(0.0, "checking the records' targets")
    total = _check_targets(files[RECORDS], target)
    store = open_store(str(spec["database_url"]))
    try:
        intake = Intake(store, str(spec["campaign_id"]), float(spec["now"]))
        source = store.get_campaign(str(spec["campaign_id"])).spec.name
        device = store.get_device(str(spec["device_id"]))
        lock = MachineLock()
        progress(0.0, "reading workloads")
        with lock.busy():
            workloads = _read_workloads(
                files[WORKLOADS], intake, BlobStore(Path(spec["blobs_dir"])), source
            )
        place = _Place(target, device.device_id, device.fingerprint, intake.campaign_id, source)
        profile = device.profile.to_json()
        batch: list[tuple[TrialRecord, str]] = []
        trial_ids: dict[str, None] = {}
        for number, record in _lines(files[RECORDS]):
            try:
                with lock.busy():
                    trial = _read_record(record, workloads, place)
            except ValueError as e:
                intake.refuse(f"record {number}", str(e))
                continue
            batch.append((trial, profile))
            trial_ids[trial.trial.trial_id] = None
            if len(batch) >= _BATCH:
                intake.take(batch)
                batch.clear()
                progress(intake.seen / total, f"applying traces, {intake.seen} of {total}")
        intake.take(batch)
    finally:
        store.close()
    return {**intake.result(), "trial_ids": list(trial_ids)}


@dataclass(frozen=True)
class _Place:
    """Where a database's records belong."""

    target: str
    device_id: str
    fingerprint: str
    campaign_id: str
    source: str


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the numbers, from 1, and the contents of a file's lines."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise invalid(
                    f"line {number} of {path.name} is longer than {_MAX_LINE_BYTES} bytes"
                )
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as e:
                raise invalid(f"line {number} of the database is not JSON: {e}") from e


def _check_targets(path: Path, target: str) -> int:
    """Refuse a database of which a record names another target; return the number of records."""
    try:
        named = tvm.target.Target(json.loads(target)).export()
    except Exception as e:  # TVM raises types of its own
        raise invalid(f"TVM does not know the target {target}: {first_line(e)}") from e
    count = 0
    for number, record in _lines(path):
        count += 1
        stated = _stated_target(record)
        if stated is not None and _exported(stated) != named:
            raise invalid(
                f"record {number} was made for {stated}, not for {target}; records of two targets "
                "never mix: import each target's with its own name"
            )
    if not count:
        raise invalid("the database has no records")
    return count


def _stated_target(record: Any) -> str | None:
    try:
        stated = record[1][2]
        return None if stated is None else json.dumps(stated, sort_keys=True)
    except (LookupError, TypeError, RecursionError):
        return None  # what is wrong with the record is told when it is read


@lru_cache(maxsize=256)
def _exported(stated: str) -> Any:
    try:
        return tvm.target.Target(json.loads(stated)).export()
    except Exception:
        return None


def _read_workloads(
    path: Path, intake: Intake, blobs: BlobStore, source: str
) -> list[_Workload | str]:
    """Read workloads; one that cannot be used is the reason why."""
    found: list[_Workload | str] = []
    for number, line in _lines(path):
        if number > _MAX_WORKLOADS:
            raise invalid(f"the database has more than {_MAX_WORKLOADS} workloads")
        try:
            text = _module_text(line)
            module = tvm.ir.load_json(text)
            if not isinstance(module, tvm.ir.IRModule) or "main" not in {
                str(v.name_hint) for v in module.get_global_vars()
            }:
                raise ValueError("it is no module with a function main")  # noqa: TRY301
            name = workload_name(module)
        except Exception as e:  # TVM raises types of its own
            found.append(f"its workload {len(found)} cannot be read: {first_line(e)}")
            continue
        record = WorkloadRecord(name, "", "main", estimated_flops(module), {source: 1})
        intake.add_workload(record, blobs.put(text.encode()))
        found.append(_Workload(name, module))
    return found


def _module_text(line: Any) -> str:
    """Decode a workload's module. TVM puts the text's length, in 8 bytes, before the text."""
    raw = base64.b64decode(line[1], validate=True)
    length = int.from_bytes(raw[:8], "little")
    return (raw[8:] if length == len(raw) - 8 else raw).decode()


def _read_record(record: Any, workloads: list[_Workload | str], place: _Place) -> TrialRecord:
    """Make a trial of a record.

    Raises:
        ValueError: it cannot be used, with the reason.
    """
    try:
        index, (trace, seconds, *_) = record
        workload = workloads[index] if index >= 0 else "it names no workload"
    except (TypeError, ValueError, LookupError) as e:
        raise ValueError(f"it is no record of a workload: {e}") from e
    if isinstance(workload, str):
        raise ValueError(workload)  # noqa: TRY004 - one kind of failure
    samples = _samples(seconds)
    candidate, text = _apply(workload.module, trace)
    lease = f"{workload.name}/{place.target}/{place.device_id}/{place.fingerprint}"
    lease_id = f"ms-{hashlib.sha256(lease.encode()).hexdigest()[:16]}"
    name = f"{lease_id}/{candidate}/{json.dumps(samples)}"
    return TrialRecord(
        key=TaskKey(workload.name, place.target, place.fingerprint),
        device_id=place.device_id,
        campaign_id=place.campaign_id,
        task="main",
        sources={place.source: 1},
        trial=Trial(
            trial_id=hashlib.sha256(name.encode()).hexdigest()[:32],
            lease_id=lease_id,
            candidate=candidate,
            trace=text,
            verdict=Verdict.OK if samples else Verdict.RUNTIME_ERROR,
            samples_s=samples,
            error="" if samples else "MetaSchedule could not measure it",
        ),
    )


def _samples(seconds: Any) -> tuple[float, ...]:
    if seconds is None:
        return ()
    if not isinstance(seconds, list) or not all(
        # Compared as they are: a whole number may be too large to become a float.
        isinstance(s, (int, float)) and 0 < s <= _LARGEST_S
        for s in seconds
    ):
        raise ValueError("its times are not positive numbers")
    return () if any(s >= _FAILED_S for s in seconds) else tuple(float(s) for s in seconds)


def _apply(module: Any, trace: Any) -> tuple[str, str]:
    """Return the scheduled program's name and the trace as JSON."""
    try:
        text = checks.check_trace(json.dumps(trace))
    except RecursionError as e:
        raise ValueError("its trace is nested too deeply") from e
    if '"Tensorize"' in text:
        # Such traces name intrinsics, which importing this registers; it takes half a minute.
        importlib.import_module("tvm.s_tir.tensor_intrin")
    schedule = Schedule(module, error_render_level="none")
    try:
        Trace.apply_json_to_schedule(trace, schedule)
    except Exception as e:  # TVM raises types of its own
        raise ValueError(f"its trace does not apply: {first_line(e)[:300]}") from e
    if not trace[0]:
        text = BASELINE_TRACE
    return workload_name(schedule.mod), text


if __name__ == "__main__":
    sys.exit(
        run_job(
            import_database,
            blame=Reason.DATASET_INVALID,
            memory_bytes=DATASET_MEMORY_BYTES,
            cpu_s=_CPU_S,
        )
    )
