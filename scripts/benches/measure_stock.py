"""Stock MetaSchedule's LocalBuilder and LocalRunner, in a process of their own.

``python -m scripts.benches.measure_stock --request FILE --out FILE`` measures the candidates of one
task. As a tuning session would, it holds schedules already, so that applying traces is not timed,
and builder and runner are made once; their wall time is that of ``build`` and ``run`` alone.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from agent.tvm_startup import import_tvm
from scripts.benches.measure_candidates import BenchTask
from scripts.benches.measure_rows import Measured, Row

_BATCH = 64
"""MetaSchedule's default for candidates measured at a time; the builder starts anew for each."""
_TIMEOUT_S = 30.0
"""MetaSchedule's default for a build and for a run."""


def measure_stock(
    task: BenchTask, target: str, threads: int, folder: Path, *, cured: bool
) -> Measured:
    """Measure a task's candidates with number=3, repeat=1, min_repeat_ms=100.

    Args:
        task: what to measure.
        target: canonical target.
        threads: threads of the candidates, and builders at a time.
        folder: for request, result and what the builders leave behind.
        cured: with the cure for the import of TVM's tensor intrinsics, see
            :mod:`agent.tvm_startup`, in builders and runner.

    Raises:
        subprocess.CalledProcessError: stock could not do it.
    """
    request, out = folder / "stock-request.json", folder / "stock-result.json"
    scratch = folder / "stock-scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    asked = {"workload": str(task.workload_path), "traces": task.traces, "target": target}
    request.write_text(json.dumps(asked | {"workers": threads, "cured": cured}))
    command = [sys.executable, "-m", "scripts.benches.measure_stock"]
    command += ["--request", str(request), "--out", str(out)]
    # The import cure lies in a module that the builders must find.
    env = os.environ | {"TVM_NUM_THREADS": str(threads), "TMPDIR": str(scratch)}
    env["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
    subprocess.run(command, check=True, stdout=sys.stderr, env=env)
    return Measured.from_json(json.loads(out.read_text()))


def cure_import() -> None:
    """Make ``inspect.stack`` cheap in this process, for good."""
    original = inspect.getmodule
    by_file: dict[str, ModuleType | None] = {}

    def getmodule(thing: Any, filename: str | None = None) -> ModuleType | None:
        code = getattr(thing, "f_code", None)
        if code is None:
            return original(thing, filename)
        if code.co_filename not in by_file:
            by_file[code.co_filename] = original(thing, filename)
        return by_file[code.co_filename]

    inspect.getmodule = getmodule  # type: ignore[assignment]


def main() -> None:
    """Do what the request says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--request", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    request = json.loads(options.request.read_text())
    import_tvm()
    options.out.write_text(json.dumps(_measure(request).to_json()))


def _measure(request: dict[str, Any]) -> Measured:
    import tvm  # noqa: PLC0415 (import_tvm has to come first)
    from tvm.s_tir import meta_schedule as ms  # noqa: PLC0415

    # By its importable name: workers load it from there.
    from scripts.benches.measure_stock import cure_import as cure  # noqa: PLC0415

    initializer = cure if request["cured"] else None
    workload = tvm.ir.load_json(Path(request["workload"]).read_text(encoding="utf-8"))
    target = tvm.target.Target(request["target"])
    schedules = [_schedule(workload, trace) for _, trace in request["traces"]]
    names = [name for name, _ in request["traces"]]
    builder = ms.builder.LocalBuilder(
        max_workers=request["workers"], timeout_sec=_TIMEOUT_S, initializer=initializer
    )
    runner = ms.runner.LocalRunner(
        timeout_sec=_TIMEOUT_S,
        evaluator_config=ms.runner.EvaluatorConfig(
            number=3, repeat=1, min_repeat_ms=100, enable_cpu_cache_flush=False
        ),
        initializer=initializer,
    )
    rows: dict[str, Row] = {}
    wall_s = 0.0
    for start in range(0, len(names), _BATCH):
        batch = range(start, min(start + _BATCH, len(names)))
        began = time.monotonic()
        built = builder.build([ms.builder.BuilderInput(schedules[i].mod, target) for i in batch])
        results = _run(ms, runner, [schedules[i] for i in batch], built)
        wall_s += time.monotonic() - began
        rows |= {names[i]: row for i, row in zip(batch, results, strict=True)}
    return Measured(rows, wall_s)


def _schedule(workload: Any, trace: str) -> Any:
    from tvm.s_tir import Schedule  # noqa: PLC0415
    from tvm.s_tir.schedule import Trace  # noqa: PLC0415

    schedule = Schedule(workload)
    Trace.apply_json_to_schedule(json.loads(trace), schedule)
    return schedule


def _run(ms: Any, runner: Any, schedules: Sequence[Any], built: Sequence[Any]) -> list[Row]:
    inputs = [
        ms.runner.RunnerInput(
            build.artifact_path,
            "cpu",
            ms.arg_info.ArgInfo.from_entry_func(schedule.mod, remove_preproc=True),
        )
        for schedule, build in zip(schedules, built, strict=True)
        if build.artifact_path is not None
    ]
    futures = iter(runner.run(inputs))
    return [
        Row("build_error", ()) if build.artifact_path is None else _row(next(futures).result())
        for build in built
    ]


def _row(result: Any) -> Row:
    if result.run_secs is None:
        return Row("failed", ())
    return Row("ok", tuple(float(second) for second in result.run_secs))


if __name__ == "__main__":
    main()
