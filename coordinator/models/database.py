"""A MetaSchedule database of a campaign's best schedules, for us and for other users of TVM."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import tvm
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.schedule import Trace

from coordinator.models.job import first_line
from coordinator.models.tasks import workload_name

_log = structlog.get_logger()


@dataclass
class Committed:
    """What went into a database."""

    database: Any
    workloads: set[str] = field(default_factory=set)
    unscheduled: set[str] = field(default_factory=set)
    """Workloads that ran fastest as they are; a database has no use for an empty schedule."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Why a record was left out, by workload."""


def write_database(
    folder: Path,
    records: Sequence[Mapping[str, Any]],
    target: str,
    section: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Committed:
    """Write ``database_workload.json`` and ``database_tuning_record.json``.

    Args:
        folder: made if missing; a database that is there already is replaced.
        records: ``{"workload", "workload_path", "trace", "latency_s"}`` each, the trace as JSON
            text (or the decoded list); ``"samples_s"``, where there, is written in place of the
            latency.
        target: canonical target JSON; a MetaSchedule database is queried without it, so one
            database must never hold records of two targets.
        section: entered for each record, so that whoever times something need not wait for all.

    Returns:
        The open database, and which workloads have a schedule that replays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("database_workload.json", "database_tuning_record.json"):
        (folder / name).unlink(missing_ok=True)
    committed = Committed(ms.database.JSONDatabase(work_dir=str(folder)))
    if any("Tensorize" in _text(record["trace"]) for record in records):
        # Such traces name intrinsics, which importing this registers; it takes half a minute.
        importlib.import_module("tvm.s_tir.tensor_intrin")
    built_for = tvm.target.Target(target)
    for record in records:
        name = str(record["workload"])
        try:
            with section():
                module = tvm.ir.load_json(Path(record["workload_path"]).read_text())
                scheduled = _commit(committed.database, module, record, built_for)
        except Exception as e:  # a trace of an older TVM or of another program must not end the job
            _log.warning("record_rejected", workload=name, error=first_line(e))
            committed.rejected[name] = first_line(e)
        else:
            group = committed.workloads if scheduled else committed.unscheduled
            group.add(workload_name(module))
    return committed


def _commit(database: Any, module: Any, record: Mapping[str, Any], target: Any) -> bool:
    """Commit one record; returns False for an empty trace, which stays out."""
    schedule = Schedule(module)
    # What does not replay here would fail inside MetaScheduleApplyDatabase, for the whole network.
    Trace.apply_json_to_schedule(json.loads(_text(record["trace"])), schedule)
    if not schedule.trace.insts:
        return False
    workload = database.commit_workload(module)
    seconds = [float(s) for s in record.get("samples_s") or [record["latency_s"]]]
    arguments = ms.arg_info.ArgInfo.from_entry_func(module, remove_preproc=True)
    database.commit_tuning_record(
        ms.database.TuningRecord(schedule.trace, workload, seconds, target, arguments)
    )
    return True


def _text(trace: Any) -> str:
    return trace if isinstance(trace, str) else json.dumps(trace)
