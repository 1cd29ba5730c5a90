"""The import job: from a user's file to prepared modules, tasks and reference data.

Spec: ``{"model_path", "shapes": {"name": [1, 3, 224, 224]}, "targets": [canonical target JSON],
"out_dir"}``, and optionally ``"model_filename"`` (what messages call the file; by default its own
name), ``"seed"`` (default 0) for the reference inputs, and ``"tasks_only"`` for those who only
collect: nothing but the tasks is made then, and the rest of the result is empty or null.

Result: ``{"inputs": [{"name", "shape", "dtype"}], "outputs": [the same], "operators": n,
"prepared": {target: path}, "untuned": {target: path},
"tasks": [{"target", "name", "workload", "path", "weight", "flops"}],
"onnx": path or null, "inputs_npz": path, "outputs_npz": path}``. ``untuned`` is prepared in the
layout the model came in. The archives hold ``input_0``, ... and ``output_0``, ...; ``onnx`` is the
network with fixed shapes for onnxruntime, and may be the given file itself.
"""

from __future__ import annotations

import hashlib
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.confinement import MODEL_MEMORY_BYTES
from coordinator.models.job import Progress, first_line, run_job
from coordinator.models.network import Network, Shapes, Tensor, random_inputs
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock

_CPU_S = 4 * 3600
"""On several cores, of half an hour that it may last."""


def import_model(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: MODEL_INVALID, MODEL_UNSUPPORTED, SHAPE_REQUIRED, MODEL_NOTHING_TO_TUNE
            or INVALID_ARGUMENT.
    """
    out_dir = Path(spec["out_dir"])
    out_dir.mkdir(parents=True, exist_ok=True)
    # Each step is one busy section: a second or two for a usual network, and not to be cut.
    lock = MachineLock()
    progress(0.0, "reading the model")
    with lock.busy():
        network = _load(spec, out_dir)
    if spec.get("tasks_only"):
        return _tasks_only(network, list(spec["targets"]), out_dir, progress, lock)
    progress(0.3, "computing reference outputs")
    with lock.busy():
        inputs = random_inputs(network.inputs, int(spec.get("seed", 0)))
        outputs = _reference(network, inputs)
    prepared: dict[str, str] = {}
    untuned: dict[str, str] = {}
    tasks: list[dict[str, Any]] = []
    targets = list(spec["targets"])
    for index, target in enumerate(targets):
        progress(0.4 + 0.6 * index / len(targets), f"extracting tasks for {target}")
        with lock.busy():
            module = _prepare(network, target, convert_layout=True)
            extracted = describe_tasks(module, target, out_dir)
            prepared[target] = _save_module(module, out_dir)
            del module
        with lock.busy():
            untuned[target] = _save_module(_prepare(network, target, convert_layout=False), out_dir)
        tasks += extracted
    _check_tasks(tasks)
    return {
        "inputs": [_described(s.name, v) for s, v in zip(network.inputs, inputs, strict=True)],
        "outputs": [
            _described(name, v) for name, v in zip(network.output_names, outputs, strict=True)
        ],
        "operators": network.operators,
        "prepared": prepared,
        "untuned": untuned,
        "tasks": tasks,
        "onnx": str(network.onnx) if network.onnx else None,
        "inputs_npz": str(_save(out_dir / "inputs.npz", "input", inputs)),
        "outputs_npz": str(_save(out_dir / "outputs.npz", "output", outputs)),
    }


def _load(spec: Mapping[str, Any], out_dir: Path) -> Network:
    path = Path(spec["model_path"])
    name = str(spec.get("model_filename") or path.name)
    shapes: Shapes = spec.get("shapes") or {}
    if not path.is_file():
        raise TuneFleetError(Reason.MODEL_INVALID, f"there is no file {name}")
    if zipfile.is_zipfile(path):
        from coordinator.models.torch_network import load_torch  # noqa: PLC0415 (2 s for torch)

        return load_torch(path, shapes, out_dir)
    from coordinator.models.onnx_network import load_onnx  # noqa: PLC0415

    return load_onnx(path, name, shapes, out_dir)


def _reference(network: Network, inputs: list[Tensor]) -> list[Tensor]:
    try:
        return network.run(inputs)
    except Exception as e:  # onnxruntime and torch raise types of their own
        message = f"the model does not run on inputs of the given shapes: {first_line(e)}"
        raise TuneFleetError(Reason.MODEL_INVALID, message) from e


def _tasks_only(
    network: Network, targets: list[str], out_dir: Path, progress: Progress, lock: MachineLock
) -> dict[str, Any]:
    tasks: list[dict[str, Any]] = []
    for index, target in enumerate(targets):
        progress(0.4 + 0.6 * index / len(targets), f"extracting tasks for {target}")
        with lock.busy():
            prepared = _prepare(network, target, convert_layout=True)
            tasks += describe_tasks(prepared, target, out_dir)
    _check_tasks(tasks)
    return {
        "prepared": {},
        "untuned": {},
        "tasks": tasks,
        "onnx": None,
        "inputs_npz": None,
        "outputs_npz": None,
    }


def _check_tasks(tasks: list[dict[str, Any]]) -> None:
    if not tasks:
        message = "the model holds nothing but data movement that needs no schedule"
        raise TuneFleetError(Reason.MODEL_NOTHING_TO_TUNE, message)


def describe_tasks(prepared: Any, target: str, out_dir: Path) -> list[dict[str, Any]]:
    """Extract a prepared network's tasks and write each one's workload to a file."""
    import tvm  # noqa: PLC0415

    from coordinator.models.tasks import tunable_tasks  # noqa: PLC0415

    tasks = []
    for task in tunable_tasks(prepared, target):
        blob = out_dir / f"workload-{task.workload}.json"
        blob.write_text(tvm.ir.save_json(task.module))
        tasks.append(
            {
                "target": target,
                "name": task.name,
                "workload": task.workload,
                "path": str(blob),
                "weight": task.weight,
                "flops": task.flops,
            }
        )
    return tasks


def _prepare(network: Network, target: str, *, convert_layout: bool) -> Any:
    from coordinator.models.prepare import prepare  # noqa: PLC0415

    try:
        return prepare(network.module, target, convert_layout=convert_layout)
    except Exception as e:  # passes raise what they like on graphs they cannot lower
        message = f"TVM cannot lower the model for {target}: {first_line(e)}"
        raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message) from e


def _save_module(module: Any, out_dir: Path) -> str:
    import tvm  # noqa: PLC0415

    text = tvm.ir.save_json(module).encode()
    # Targets that lower to the same module share the file: it holds all the weights.
    path = out_dir / f"prepared-{hashlib.sha256(text).hexdigest()[:16]}.json"
    path.write_bytes(text)
    return str(path)


def _save(path: Path, prefix: str, values: list[Tensor]) -> Path:
    arrays: dict[str, Any] = {f"{prefix}_{index}": value for index, value in enumerate(values)}
    np.savez(path, **arrays)
    return path


def _described(name: str, value: Tensor) -> dict[str, Any]:
    return {"name": name, "shape": list(value.shape), "dtype": value.dtype.name}


if __name__ == "__main__":
    sys.exit(
        run_job(
            import_model,
            blame=Reason.MODEL_INVALID,
            memory_bytes=MODEL_MEMORY_BYTES,
            cpu_s=_CPU_S,
        )
    )
