"""Known schedules applied to their workload: the programs' names and features."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.search.executor import PoliteExecutor
from agent.search.messages import ErrorKind, FeaturizeRequest, SearchError
from agent.search.space import (
    WorkloadError,
    extract_features,
    load_module,
    program_name,
)
from agent.tvm_startup import import_tvm
from tunefleet.leases import FeaturizedTrace, NamedTrace
from tunefleet.machine_lock import MachineLock
from tunefleet.trials import ProgramFeatures

tvm = import_tvm()

from tvm.s_tir import Schedule  # noqa: E402 (TVM must have been imported in our way before)
from tvm.s_tir import meta_schedule as ms  # noqa: E402
from tvm.s_tir.schedule import Trace  # noqa: E402

_LONGEST_REASON = 300
"""Characters of an error; TVM's come with whole programs."""


def featurize(request: FeaturizeRequest, lock: MachineLock) -> list[FeaturizedTrace]:
    """Apply schedules and extract the programs' features.

    Returns:
        One result for each trace, in their order; those that do not apply, or make another program
        than they should, have the reason in place of features.

    Raises:
        SearchError: the workload cannot be used at all.
    """
    executor = PoliteExecutor(lock, request.threads)
    try:
        applier = executor.run(lambda r: _Applier(r.workload_path, r), request)
        return executor.map(applier.apply, request.traces)
    except WorkloadError as e:
        raise SearchError(ErrorKind.WORKLOAD, str(e)) from e
    finally:
        executor.close()


class _Applier:
    """One workload, ready to be scheduled. May be used by several threads at once."""

    def __init__(self, path: Path, request: FeaturizeRequest) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise WorkloadError(f"the workload {path} cannot be read: {e}") from e
        self._module = load_module(text)
        found = program_name(self._module)
        if found != request.workload:
            raise WorkloadError(f"{path} holds workload {found} instead of {request.workload}")
        try:
            target = tvm.target.Target(json.loads(request.target))
            self._context = ms.TuneContext(mod=self._module, target=target, num_threads=1)
        except Exception as e:
            raise WorkloadError(f"TVM cannot use the target {request.target}: {e}") from e
        self._extractor = ms.feature_extractor.PerStoreFeature(extract_workload=True)

    def apply(self, wanted: NamedTrace) -> FeaturizedTrace:
        """Apply one schedule."""
        try:
            schedule = Schedule(self._module, error_render_level="none")
            trace = json.loads(wanted.trace)
            Trace.apply_json_to_schedule(trace, schedule)
        except Exception as e:
            return FeaturizedTrace(wanted.candidate, error=f"does not apply: {_reason(e)}")
        found = program_name(schedule.mod)
        if found != wanted.candidate:
            return FeaturizedTrace(
                wanted.candidate, error=f"makes program {found} instead of {wanted.candidate}"
            )
        try:
            rows = extract_features(self._extractor, self._context, schedule)
        except Exception as e:
            return FeaturizedTrace(wanted.candidate, error=f"has no features: {_reason(e)}")
        return FeaturizedTrace(wanted.candidate, ProgramFeatures(len(rows), rows.tobytes()))


def _reason(error: Exception) -> str:
    """Return what an exception says, without the frames that TVM adds."""
    told = list(_told(error)) or [type(error).__name__]
    return told[0][:_LONGEST_REASON]


def _told(error: Any) -> Iterator[str]:
    for line in str(error).splitlines():
        if line.strip() and not line.strip().startswith(("File ", "Traceback", "at ")):
            yield line.strip()
