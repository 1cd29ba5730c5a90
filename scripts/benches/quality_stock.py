"""Stock MetaSchedule tuning a whole network, in a process of its own, each trial with its time.

The network is imported and lowered as TVM's documentation has its users do (the passes that
``static_shape_tuning`` runs before it tunes), then ``tune_relax`` does what it does by default:
LocalBuilder, LocalRunner, XGBModel, gradient scheduler, evolutionary search. Three things differ
from the defaults: builders and runners are cured of their slow import (:mod:`agent.tvm_startup`);
the warm-up rounds, in which the scheduler visits every task once, measure fewer candidates than 64,
which would spend the whole budget on some of the tasks; and there are as many builders as threads.
Importing TVM is not counted, for either side.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coordinator.models.job import Progress, run_job
from scripts.benches.quality_curve import Event, Run
from scripts.benches.quality_jobs import run_job_once
from scripts.benches.quality_networks import QualityNetwork

_TIMEOUT_S = 30.0
"""MetaSchedule's default for a build and for a run."""
_QUICK_TIMEOUT_S = 300.0
"""A first look may be taken on a busy machine, where starting a builder alone takes longer."""


def tune_stock(
    network: QualityNetwork,
    target: str,
    threads: int,
    folder: Path,
    *,
    trials_per_task: int,
    batch: int,
    seed: int,
    prepared: bool,
    quick: bool,
) -> Run:
    """Tune a network, unless the folder has the result of the same call.

    Args:
        network: what to tune.
        target: canonical target.
        threads: of the candidates, and builders at a time.
        folder: for everything that stock leaves behind.
        trials_per_task: on average.
        batch: candidates measured at a time.
        seed: of MetaSchedule's random choices.
        prepared: give it the network as we prepare it (batch norms folded, channels-last), the
            import's time included, in place of TVM's own lowering.
        quick: a search of a few candidates, which is not stock any more.

    Raises:
        JobError: it failed.
    """
    spec = {
        "model": str(network.model),
        "prepared": str(network.prepared) if prepared else None,
        "import_s": network.import_s if prepared else 0.0,
        "target": target,
        "threads": threads,
        "trials_per_task": trials_per_task,
        "batch": batch,
        "seed": seed,
        "quick": quick,
        "out_dir": str(folder),
    }
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    env = {"TVM_NUM_THREADS": str(threads), "TMPDIR": str(scratch)}
    made = run_job_once("scripts.benches.quality_stock", spec, folder, env)
    return Run.load(Path(made["run"]))


def _tune(spec: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    from agent.tvm_startup import import_tvm  # noqa: PLC0415

    tvm = import_tvm()
    from coordinator.models.linker import Linker  # noqa: PLC0415

    out_dir = Path(spec["out_dir"])
    target = tvm.target.Target(spec["target"])
    began = time.monotonic() - spec["import_s"]
    module = _lowered(tvm, spec, target)
    watch = _Watch(began, out_dir / "trials.jsonl")
    database = _tune_relax(spec, module, target, watch)
    seconds = time.monotonic() - began
    library = out_dir / "stock.so"
    with target, database, tvm.transform.PassContext(opt_level=3):
        scheduled = tvm.relax.transform.MetaScheduleApplyDatabase()(module)
    executable = tvm.relax.build(scheduled, target=target)
    executable.export_library(str(library), fcompile=Linker(spec["target"]))
    run = Run(seconds, watch.weights, watch.events, library=str(library))
    run.save(out_dir / "run.json")
    return {"run": str(out_dir / "run.json")}


def _lowered(tvm: Any, spec: Mapping[str, Any], target: Any) -> Any:
    from tvm import relax  # noqa: PLC0415

    if spec["prepared"] is not None:
        return tvm.ir.load_json(Path(spec["prepared"]).read_text())
    from coordinator.models.onnx_network import load_onnx  # noqa: PLC0415

    # TVM's importer, behind what makes old files readable to it: nothing is tuned here.
    model = Path(spec["model"])
    module = load_onnx(model, model.name, {}, model.parent).module
    passes = [
        relax.transform.DecomposeOpsForInference(),
        relax.transform.CanonicalizeBindings(),
        relax.get_pipeline("zero"),
    ]
    with target, tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)


def _tune_relax(spec: Mapping[str, Any], module: Any, target: Any, watch: _Watch) -> Any:
    from tvm.s_tir import meta_schedule as ms  # noqa: PLC0415

    # By its importable name: workers load it from there.
    from scripts.benches.measure_stock import cure_import  # noqa: PLC0415

    tasks = ms.relax_integration.extract_tasks(module, target)
    watch.expect(tasks)
    limit_s = _QUICK_TIMEOUT_S if spec["quick"] else _TIMEOUT_S
    few = {"population_size": 16, "init_min_unmeasured": 8, "genetic_num_iters": 1}
    chosen = {"strategy": ms.search_strategy.EvolutionarySearch(**few)} if spec["quick"] else {}
    return ms.relax_integration.tune_relax(
        mod=module,
        params={},
        target=target,
        work_dir=str(Path(spec["out_dir"]) / "work"),
        max_trials_global=spec["trials_per_task"] * len(tasks),
        num_trials_per_iter=spec["batch"],
        builder=ms.builder.LocalBuilder(
            max_workers=spec["threads"], timeout_sec=limit_s, initializer=cure_import
        ),
        runner=_stamping(
            ms, ms.runner.LocalRunner(timeout_sec=limit_s, initializer=cure_import), watch
        ),
        measure_callbacks=[
            *ms.measure_callback.MeasureCallback.create("default"),
            _reporting(ms, watch),
        ],
        seed=spec["seed"],
        **chosen,
    )


class _Watch:
    """Keeps each trial with its time, in memory and in a file of JSON lines."""

    def __init__(self, began: float, path: Path) -> None:
        self.weights: dict[str, int] = {}
        self._events: list[Event] = []
        self._ran: dict[str, float] = {}
        self._began = began
        self._path = path
        path.write_text("")

    @property
    def events(self) -> tuple[Event, ...]:
        """What was measured, in order of time."""
        return tuple(sorted(self._events, key=lambda event: event.seconds))

    def expect(self, tasks: Any) -> None:
        for task in tasks:
            name = _workload(task.dispatched[0])
            self.weights[name] = self.weights.get(name, 0) + int(task.weight)

    def ran(self, artifacts: Iterable[str]) -> None:
        """Note when a batch was measured: the scheduler takes it in a whole round later."""
        seconds = time.monotonic() - self._began
        self._ran |= dict.fromkeys(artifacts, seconds)

    def measured(self, module: Any, candidates: Any, builds: Any, results: Any) -> None:
        now, name = time.monotonic() - self._began, _workload(module)
        with self._path.open("a") as lines:
            for candidate, build, result in zip(candidates, builds, results, strict=True):
                seconds = self._ran.get(str(build.artifact_path), now)
                samples = [float(s) for s in result.run_secs or ()]
                latency_s = sum(samples) / len(samples) if samples else None
                trace = json.dumps(candidate.sch.trace.as_json(), default=_number)
                self._events.append(Event(seconds, name, latency_s, trace))
                line = {"seconds": seconds, "workload": name, "weight": self.weights.get(name)}
                lines.write(json.dumps(line | {"run_secs": samples, "trace": trace}) + "\n")


def _number(value: Any) -> int | float:
    """Unpack a TVM immediate; some decisions and probabilities are such."""
    number: int | float = value.value
    return number


def _workload(module: Any) -> str:
    from coordinator.models.tasks import workload_name  # noqa: PLC0415 (TVM)

    return workload_name(module)


def _stamping(ms: Any, runner: Any, watch: _Watch) -> Any:
    """Wrap a runner that measures before it returns, as LocalRunner does."""
    from tvm.ir.utils import derived_object  # noqa: PLC0415

    class Stamping(ms.runner.PyRunner):  # type: ignore[misc]
        def run(self, runner_inputs: Any) -> Any:
            futures = runner.run(runner_inputs)
            watch.ran(str(each.artifact_path) for each in runner_inputs)
            return futures

    return derived_object(Stamping)()


def _reporting(ms: Any, watch: _Watch) -> Any:
    from tvm.ir.utils import derived_object  # noqa: PLC0415

    class Reporting(ms.measure_callback.PyMeasureCallback):  # type: ignore[misc]
        def apply(
            self,
            task_scheduler: Any,
            task_id: int,
            measure_candidates: Any,
            builder_results: Any,
            runner_results: Any,
        ) -> None:
            module = task_scheduler.tasks_[task_id].ctx.mod
            watch.measured(module, measure_candidates, builder_results, runner_results)

    return derived_object(Reporting)()


if __name__ == "__main__":
    sys.exit(run_job(_tune))
