"""The compile job, from an imported network to modules that run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import AARCH64, AVX2, import_model, run_job, write_conv_net

UNSCHEDULED = "[[],[]]"
ELF_MACHINE_OFFSET = 18
ELF_AARCH64 = 183


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("import")
    code, result = import_model(write_conv_net(folder / "net.onnx"), folder, (AVX2, AARCH64))
    assert code == 0, result
    return result


def parallel_trace(workload_path: str) -> str:
    """Schedule a workload by hand; returns the trace."""
    import tvm
    from tvm.s_tir import Schedule

    schedule = Schedule(tvm.ir.load_json(Path(workload_path).read_text()))
    block = schedule.get_child_blocks(schedule.get_sblock("root"))[-1]
    schedule.parallel(schedule.fuse(*schedule.get_loops(block)[:4]))
    return json.dumps(schedule.trace.as_json(), default=lambda number: number.value)


def record(task: dict[str, Any], trace: str) -> dict[str, Any]:
    return {
        "workload": task["workload"],
        "workload_path": task["path"],
        "trace": trace,
        "latency_s": 1e-3,
    }


def compile_model(
    imported: dict[str, Any],
    folder: Path,
    records: list[dict[str, Any]],
    target: str = AVX2,
    env: dict[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "records.json").write_text(json.dumps(records))
    spec = {
        "prepared": imported["prepared"][target],
        "untuned": imported["untuned"][target],
        "target": target,
        "records": str(folder / "records.json"),
        "out_dir": str(folder / "built"),
    }
    return run_job("coordinator.models.compile_job", spec, folder, env)


def conv_tasks(imported: dict[str, Any]) -> list[dict[str, Any]]:
    return [t for t in imported["tasks"] if t["target"] == AVX2 and "conv2d" in t["name"]]


def max_abs_error(library: str, imported: dict[str, Any]) -> float:
    import tvm
    from tvm import relax

    main = relax.VirtualMachine(tvm.runtime.load_module(library), tvm.cpu())["main"]
    with np.load(imported["inputs_npz"]) as inputs, np.load(imported["outputs_npz"]) as outputs:
        result = main(tvm.runtime.tensor(inputs["input_0"])).numpy()
        return float(np.abs(result - outputs["output_0"]).max())


def test_every_task_is_a_function_of_the_network(imported: dict[str, Any], tmp_path: Path) -> None:
    spec = {"prepared": imported["prepared"][AVX2]}
    code, result = run_job("coordinator.models.functions_job", spec, tmp_path)
    assert code == 0, result
    names = {t["name"]: t["workload"] for t in imported["tasks"] if t["target"] == AVX2}
    assert names.items() <= result["functions"].items()


@pytest.fixture(scope="module")
def compiled(imported: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    first, second, *_ = conv_tasks(imported)
    records = [record(first, parallel_trace(first["path"])), record(second, UNSCHEDULED)]
    # Without a PATH there is no system compiler to find.
    code, result = compile_model(
        imported, tmp_path_factory.mktemp("compile"), records, env={"PATH": "", "CC": "", "CXX": ""}
    )
    assert code == 0, result
    return result


@pytest.mark.parametrize("name", ["tuned", "untuned"])
def test_a_module_computes_what_onnxruntime_does(
    compiled: dict[str, Any], imported: dict[str, Any], name: str
) -> None:
    assert max_abs_error(compiled[name], imported) < 1e-4


def test_only_the_tuned_module_is_scheduled(compiled: dict[str, Any]) -> None:
    tuned, untuned = (Path(compiled[n]).read_bytes() for n in ("tuned", "untuned"))
    assert b"TVMBackendParallelLaunch" in tuned
    assert b"TVMBackendParallelLaunch" not in untuned


def test_tasks_without_a_record_are_told(
    compiled: dict[str, Any], imported: dict[str, Any]
) -> None:
    workloads = {t["workload"] for t in imported["tasks"] if t["target"] == AVX2}
    recorded = {t["workload"] for t in conv_tasks(imported)[:2]}
    assert compiled["applied"] == 1
    assert compiled["unscheduled"] == [conv_tasks(imported)[1]["workload"]]
    assert set(compiled["missing"]) == workloads - recorded
    assert compiled["rejected"] == {}


def test_the_database_serves_other_users_of_tvm(
    compiled: dict[str, Any], imported: dict[str, Any]
) -> None:
    import tvm
    from tvm.s_tir import meta_schedule as ms

    database = ms.database.JSONDatabase(work_dir=compiled["database"])
    module = tvm.ir.load_json(Path(conv_tasks(imported)[0]["path"]).read_text())
    schedule = database.query_schedule(module, tvm.target.Target(AVX2), "main")
    assert len(database) == 1
    assert "T.parallel" in schedule.mod.script()


def test_the_script_beside_the_module_runs(compiled: dict[str, Any]) -> None:
    done = subprocess.run(
        [sys.executable, compiled["run_script"]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("output: (1, "), first
    assert re.fullmatch(r"latency: \d+\.\d{3} ms \(median of 10 runs\)", last), last


def test_a_trace_that_does_not_replay_is_rejected_alone(
    imported: dict[str, Any], tmp_path: Path
) -> None:
    first, second, *_ = conv_tasks(imported)
    trace = json.loads(parallel_trace(first["path"]))
    trace[0][0][2] = ["no_such_block", "main"]
    records = [record(first, json.dumps(trace)), record(second, parallel_trace(second["path"]))]
    code, result = compile_model(imported, tmp_path, records)
    assert code == 0, result
    assert list(result["rejected"]) == [first["workload"]]
    assert first["workload"] in result["missing"]
    assert result["applied"] == 1
    assert max_abs_error(result["tuned"], imported) < 1e-4


def test_a_module_is_linked_for_another_architecture(
    imported: dict[str, Any], tmp_path: Path
) -> None:
    code, result = compile_model(imported, tmp_path, [], AARCH64)
    assert code == 0, result
    header = Path(result["tuned"]).read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[ELF_MACHINE_OFFSET:], "little") == ELF_AARCH64
