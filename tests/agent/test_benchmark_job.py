"""The benchmark job with real networks, and with subjects that misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from agent.benchmark.profiling import spent_by_run
from tunefleet.machine_lock import MachineLock

WEIGHTS = np.random.default_rng(2).standard_normal((64, 32)).astype(np.float32)


def write_onnx(path: Path) -> str:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 32])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return str(path)


def link(output: str, objects: list[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "ziglang", "ld.lld", "-shared", *objects, "-o", output], check=True
    )


def write_tvm(path: Path) -> str:
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((16, 64), "float32"))
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.matmul(x, relax.const(WEIGHTS))))
    target = tvm.target.Target({"kind": "llvm"})
    relax.build(builder.get(), target).export_library(str(path), fcompile=link)
    return str(path)


def write_layers(path: Path) -> None:
    """Write a network that multiplies, and calls one other function twice."""
    import tvm
    from tvm import relax, te

    def double(x: Any) -> Any:
        return te.compute(x.shape, lambda i, j: x[i, j] + x[i, j], name="double")

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((16, 64), "float32"))
    with builder.function("main", [x]):
        y = builder.emit(relax.op.matmul(x, relax.const(WEIGHTS)))
        y = builder.emit_te(double, y, primfunc_name_hint="double")
        builder.emit_func_output(builder.emit_te(double, y, primfunc_name_hint="double"))
    target = tvm.target.Target({"kind": "llvm"})
    relax.build(builder.get(), target).export_library(str(path), fcompile=link)


def write_library_that(path: Path, statement: str) -> str:
    """Write a shared library that does something as soon as it is loaded."""
    # LLVM IR needs no C compiler; the constructor runs inside dlopen.
    text = f"""
    declare void @abort()
    declare i32 @pause()
    @llvm.global_ctors = appending global [1 x {{i32, ptr, ptr}}]
        [{{i32, ptr, ptr}} {{i32 65535, ptr @start, ptr null}}]
    define void @start() {{
      br label %again
    again:
      {statement}
      br label %again
    }}
    """
    source = path.with_suffix(".ll")
    source.write_text(text)
    compiled = path.with_suffix(".o")
    subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-c", "-fPIC", str(source), "-o", str(compiled)],
        check=True,
    )
    link(str(path), [str(compiled)])
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    x = np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)
    np.savez(folder / "inputs.npz", input_0=x)
    np.savez(folder / "outputs.npz", output_0=x @ WEIGHTS)
    np.savez(folder / "twice.npz", output_0=4 * (x @ WEIGHTS))
    np.savez(folder / "wrong.npz", output_0=x @ WEIGHTS + 0.5)
    np.savez(folder / "narrow.npz", output_0=(x @ WEIGHTS)[:, 1:])
    np.savez(folder / "pickled.npz", input_0=np.array([{"an": "object"}], object))
    write_onnx(folder / "net.onnx")
    write_tvm(folder / "net.so")
    return folder


def benchmark(folder: Path, *subjects: tuple[str, str], **changes: Any) -> dict[str, Any]:
    """Run the job; returns the results by subject."""
    spec = {
        "subjects": [
            {"name": f"{kind} {Path(path).name}", "kind": kind, "path": path}
            for kind, path in subjects
        ],
        "inputs": str(folder / "inputs.npz"),
        "outputs": str(folder / "outputs.npz"),
        "threads": 1,
        "repeat": 3,
        "min_repeat_ms": 1,
        **changes,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "agent.benchmark.job"]
    command += ["--spec", str(folder / "spec.json"), "--out", str(folder / "out.json")]
    environment = {**os.environ, "TUNEFLEET_LOCK_DIR": str(folder / "locks")}
    subprocess.run(command, env=environment, check=True, timeout=200)
    results = json.loads((folder / "out.json").read_text())["results"]
    return {result["name"]: result for result in results}


def test_tvm_and_onnxruntime_are_compared_and_timed(folder: Path) -> None:
    results = benchmark(folder, ("tvm", str(folder / "net.so")), ("onnx", str(folder / "net.onnx")))
    assert list(results) == ["tvm net.so", "onnx net.onnx"]
    for result in results.values():
        assert result["error"] == ""
        assert result["max_abs_err"] < 1e-4
        assert len(result["samples_s"]) == 3
        assert all(0 < sample < 1 for sample in result["samples_s"])
        assert result["quiet"] is True


def test_nobody_is_told_where_time_goes_unless_asked(folder: Path) -> None:
    subjects = (("tvm", str(folder / "net.so")), ("onnx", str(folder / "net.onnx")))
    for result in benchmark(folder, *subjects, repeat=1).values():
        assert (result["ops"], result["profiled_s"], result["between_s"]) == ([], [], [])


def test_the_functions_of_a_network_account_for_its_time(folder: Path, tmp_path: Path) -> None:
    write_layers(tmp_path / "layers.so")
    subject = ("tvm", str(tmp_path / "layers.so"))
    outputs = str(folder / "twice.npz")
    [result] = benchmark(folder, subject, outputs=outputs, per_op=True, min_repeat_ms=20).values()
    assert result["error"] == ""
    assert result["max_abs_err"] < 1e-3
    calls = {op["name"]: op["calls"] for op in result["ops"]}
    assert calls["double"] == 2, "a function that is called twice is one row"
    assert calls["matmul"] == 1
    assert calls["vm.builtin.alloc_storage"] >= 1, "what the VM does itself is told too"
    assert all(op["seconds"] > 0 for op in result["ops"])
    assert len(result["profiled_s"]) == len(result["samples_s"]) == 3
    shares = zip(result["between_s"], result["profiled_s"], strict=True)
    assert all(0 < between < whole for between, whole in shares)


def test_the_nodes_of_an_onnx_graph_account_for_its_time(folder: Path) -> None:
    subject = ("onnx", str(folder / "net.onnx"))
    result = benchmark(folder, subject, per_op=True)["onnx net.onnx"]
    [op] = result["ops"]
    assert (op["name"], op["op"], op["calls"]) == ("product", "MatMul", 1)
    assert 0 <= op["seconds"] < max(result["profiled_s"])
    shares = zip(result["between_s"], result["profiled_s"], strict=True)
    assert all(0 < between <= whole for between, whole in shares)
    assert not list(folder.glob("profile-*/*")), "onnxruntime's profile is left behind"


def event(cat: str, name: str, ts: int, dur: int, op: str = "") -> dict[str, Any]:
    return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {"op_name": op}}


def test_nodes_belong_to_their_runs_and_to_none_of_their_branches() -> None:
    events = [
        event("Session", "session_initialization", 0, 100),
        event("Node", "then_kernel_time", 112, 20, "Add"),
        event("Node", "choose_kernel_time", 110, 50, "If"),
        event("Node", "_kernel_time", 160, 5, "Relu"),
        event("Session", "model_run", 105, 70),
        event("Node", "_kernel_time", 210, 7, "Relu"),
        event("Session", "model_run", 205, 20),
    ]
    first, second = spent_by_run(events)
    assert first == {
        ("choose", "If"): (1, pytest.approx(30e-6)),
        ("then", "Add"): (1, pytest.approx(20e-6)),
        ("Relu_", "Relu"): (1, pytest.approx(5e-6)),
    }
    assert second == {("Relu_", "Relu"): (1, pytest.approx(7e-6))}


def test_a_wrong_output_shows_in_the_error(folder: Path) -> None:
    subject = ("onnx", str(folder / "net.onnx"))
    result = benchmark(folder, subject, outputs=str(folder / "wrong.npz"))["onnx net.onnx"]
    assert result["max_abs_err"] == pytest.approx(0.5, abs=1e-4)


def test_an_output_of_another_shape_is_an_error(folder: Path) -> None:
    subject = ("tvm", str(folder / "net.so"))
    result = benchmark(folder, subject, outputs=str(folder / "narrow.npz"))["tvm net.so"]
    assert "shape (16, 32) instead of (16, 31)" in result["error"]
    assert (result["max_abs_err"], result["samples_s"]) == (None, [])


def test_pickled_inputs_are_not_read(folder: Path) -> None:
    subject = ("onnx", str(folder / "net.onnx"))
    result = benchmark(folder, subject, inputs=str(folder / "pickled.npz"))["onnx net.onnx"]
    assert "allow_pickle=False" in result["error"]


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("call void @abort()", "killed by SIGABRT"),
        ("call i32 @pause()", "did not finish in the time given"),
    ],
    ids=["crash", "hang"],
)
def test_a_subject_that_crashes_or_hangs_costs_only_itself(
    folder: Path, tmp_path: Path, statement: str, told: str
) -> None:
    bad = write_library_that(tmp_path / "bad.so", statement)
    results = benchmark(folder, ("tvm", bad), ("onnx", str(folder / "net.onnx")), timeout_s=8)
    assert told in results["tvm bad.so"]["error"]
    assert results["onnx net.onnx"]["error"] == ""
    assert len(results["onnx net.onnx"]["samples_s"]) == 3


def test_a_missing_file_is_told(folder: Path) -> None:
    results = benchmark(folder, ("tvm", str(folder / "gone.so")))
    assert "gone.so" in results["tvm gone.so"]["error"]


def test_nothing_is_timed_while_the_machine_is_busy(folder: Path) -> None:
    lock = MachineLock(folder / "locks")
    with lock.busy():
        spec = {"timeout_s": 8}
        result = benchmark(folder, ("onnx", str(folder / "net.onnx")), **spec)["onnx net.onnx"]
    assert result["samples_s"] == []
    assert result["max_abs_err"] < 1e-4
