"""The candidates that the measuring bench times: random schedules of real networks' tasks."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_NETWORKS = ("squeezenet", "resnet50")
_TASKS_EACH = 2
_ATTEMPTS = 4
"""Seeds tried for each candidate wanted: some schedules are invalid or equal to another."""


@dataclass(frozen=True)
class BenchTask:
    """One task and its candidates."""

    name: str
    workload_path: Path
    """The IRModule as TVM's JSON."""
    traces: tuple[tuple[str, str], ...]
    """Structural hash and trace of each candidate, all different."""


def prepare_tasks(folder: Path, target: str, per_task: int, seed: int) -> list[BenchTask]:
    """Import the networks as a coordinator does, and draw candidates as an agent does.

    Both happen in a process of their own, so that this one stays free of TVM. What lies in the
    folder from an earlier call with the same arguments is used again.

    Args:
        folder: where networks, workloads and candidates are kept.
        target: canonical target.
        per_task: candidates of each task; fewer where the design space is smaller.
        seed: equal seeds give equal candidates.

    Returns:
        The two tasks with the most floating-point work of squeezenet, then those of resnet50.

    Raises:
        subprocess.CalledProcessError: a network cannot be imported or scheduled.
    """
    wanted = {"target": target, "per_task": per_task, "seed": seed}
    index = folder / "tasks.json"
    if not index.exists() or json.loads(index.read_text())["wanted"] != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", __spec__.name, "--folder", str(folder), "--target", target]
        command += ["--per-task", str(per_task), "--seed", str(seed)]
        # Stdout is for the bench's result alone.
        subprocess.run(command, check=True, stdout=sys.stderr)
    return [
        BenchTask(
            task["name"],
            Path(task["workload_path"]),
            tuple((name, trace) for name, trace in task["traces"]),
        )
        for task in json.loads(index.read_text())["tasks"]
    ]


def main() -> None:
    """Write ``tasks.json`` into the folder."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--per-task", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    tasks = []
    for network in _NETWORKS:
        for task in _import(network, options.folder, options.target)[:_TASKS_EACH]:
            traces = _draw(Path(task["path"]), options.target, options.per_task, options.seed)
            name = f"{network} {task['name']}"
            tasks.append(asdict(BenchTask(name, task["path"], tuple(traces))))
    wanted = {"target": options.target, "per_task": options.per_task, "seed": options.seed}
    text = json.dumps({"wanted": wanted, "tasks": tasks}, default=str)
    (options.folder / "tasks.json").write_text(text)


def _import(network: str, folder: Path, target: str) -> list[dict[str, str]]:
    from coordinator.models.examples import write_example  # noqa: PLC0415 (TVM, onnx: slow)
    from coordinator.models.import_job import import_model  # noqa: PLC0415

    model = folder / f"{network}.onnx"
    write_example(network, model)
    spec = {"model_path": str(model), "targets": [target], "out_dir": str(folder / network)}
    imported = import_model(spec, lambda _share, _message: None)
    tasks: list[dict[str, str]] = imported["tasks"]
    return tasks


def _draw(workload: Path, target: str, count: int, seed: int) -> list[tuple[str, str]]:
    from agent.search.executor import PoliteExecutor  # noqa: PLC0415
    from agent.search.space import DesignSpace  # noqa: PLC0415
    from tunefleet.machine_lock import MachineLock  # noqa: PLC0415

    space = DesignSpace(workload.read_text(encoding="utf-8"), target)
    executor = PoliteExecutor(MachineLock(), len(os.sched_getaffinity(0)))
    first_seed = 1 + seed * 1_000_000  # TVM takes no 0
    seeds = range(first_seed, first_seed + count * _ATTEMPTS)
    drawn: dict[str, str] = {}
    with space.work_on(executor):
        for first in range(0, len(seeds), count):
            programs = space.sample(seeds[first : first + count])
            for program, trace in zip(programs, space.write(programs), strict=True):
                if trace is not None and len(drawn) < count:
                    drawn.setdefault(program.candidate, trace)
            if len(drawn) == count:
                break
    executor.close()
    return list(drawn.items())


if __name__ == "__main__":
    main()
