"""Small networks and the jobs that work on them, for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

AVX2 = '{"kind":"llvm","mcpu":"x86-64-v3","mtriple":"x86_64-unknown-linux-gnu","num-cores":2}'
SSE = '{"kind":"llvm","mcpu":"x86-64-v2","mtriple":"x86_64-unknown-linux-gnu","num-cores":2}'
AARCH64 = '{"kind":"llvm","mcpu":"generic","mtriple":"aarch64-unknown-linux-gnu","num-cores":2}'


def run_job(
    module: str, spec: dict[str, Any], folder: Path, env: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Run a job as the coordinator does; returns its exit code and what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    spec_path, out_path = folder / "spec.json", folder / "out.json"
    spec_path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", module, "--spec", str(spec_path), "--out", str(out_path)]
    environment = {**os.environ, "TUNEFLEET_LOCK_DIR": str(folder / "locks"), **(env or {})}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert out_path.exists(), done.stderr
    return done.returncode, json.loads(out_path.read_text())


def import_model(
    model: Path, folder: Path, targets: tuple[str, ...] = (AVX2,), **shapes: list[int]
) -> tuple[int, dict[str, Any]]:
    """Run the import job."""
    spec = {
        "model_path": str(model),
        "shapes": shapes,
        "targets": list(targets),
        "out_dir": str(folder / "imported"),
    }
    return run_job("coordinator.models.import_job", spec, folder)


def write_onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray[Any, Any]],
    shape: list[int | str],
    output_shape: list[int | str],
) -> Path:
    """Write a model with one float input ``x`` and one float output ``y``."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("test.custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def write_conv_net(path: Path, batch: int | str = 1) -> Path:
    """Write two normalised convolutions, two equal ones, one with a residual sum, a classifier."""
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return (0.3 * rng.standard_normal(shape)).astype(np.float32)

    weights = {
        "w1": draw(8, 3, 3, 3),
        "w2": draw(8, 8, 3, 3),
        "b2": draw(8),
        "w3": draw(8, 8, 1, 1),
        "b3": draw(8),
        "w4": draw(8, 8, 1, 1),
        "b4": draw(8),
        "w5": draw(8, 8, 1, 1),
        "b5": draw(8),
        "wg": draw(10, 8),
        "bg": draw(10),
        "scale": 1 + draw(8),
        "shift": draw(8),
        "mean": draw(8),
        "variance": 1 + np.abs(draw(8)),
    }
    statistics = ["scale", "shift", "mean", "variance"]
    pad = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], **pad),
        helper.make_node("BatchNormalization", ["c1", *statistics], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], **pad),
        helper.make_node("BatchNormalization", ["c2", *statistics], ["n2"]),
        helper.make_node("Relu", ["n2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"]),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Conv", ["r3", "w4", "b4"], ["c4"]),
        helper.make_node("Relu", ["c4"], ["r4"]),
        helper.make_node("Conv", ["r4", "w5", "b5"], ["c5"]),
        helper.make_node("Sum", ["r2", "c5", "r1"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("Gemm", ["f", "wg", "bg"], ["y"], transB=1),
    ]
    return write_onnx(path, nodes, weights, [batch, 3, 16, 16], [batch, 10])
