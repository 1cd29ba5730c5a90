"""``Clip`` is fused like any other activation, and bounds what onnxruntime bounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from coordinator.models.onnx_network import load_onnx
from coordinator.models.prepare import prepare

TARGET = json.dumps({"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 1})
BOUNDS = [(0.0, 6.0), (None, 0.5), (-0.25, None), (None, None), (float("nan"), 0.5)]


def write_clipped(path: Path, opset: int, low: float | None, high: float | None) -> Path:
    """Write two convolutions with a Clip behind each; bounds are attributes before opset 11."""
    rng = np.random.default_rng(0)
    weights = {f"w{n}": rng.standard_normal((4, 4, 3, 3)).astype(np.float32) for n in (1, 2)}
    inputs = ["", ""]
    attributes = {}
    for place, (name, value) in enumerate((("min", low), ("max", high))):
        if value is not None and opset < 11:
            attributes[name] = value
        elif value is not None:
            weights[name] = np.array(value, np.float32)
            inputs[place] = name
    given = inputs if opset >= 11 else []
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Clip", ["c1", *given], ["r1"], **attributes),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Clip", ["c2", *given], ["y"], **attributes),
    ]
    graph = helper.make_graph(
        nodes,
        "clipped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("opset", [10, 17])
@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_a_clip_is_fused_and_computes_what_onnxruntime_does(
    tmp_path: Path, opset: int, low: float | None, high: float | None
) -> None:
    path = write_clipped(tmp_path / "clipped.onnx", opset, low, high)
    network = load_onnx(path, path.name, {}, tmp_path)
    prepared = prepare(network.module, TARGET)
    names = [variable.name_hint for variable in prepared.functions]
    assert all("conv2d" in name for name in names if "imum" in name)
    assert all("imum" in name for name in names if "conv2d" in name) or (low, high) == (None, None)

    machine = relax.VirtualMachine(
        tvm.compile(prepared, target=tvm.target.Target(TARGET)), tvm.cpu()
    )
    values = np.random.default_rng(1).normal(size=(1, 4, 12, 12)).astype(np.float32)
    got = machine["main"](tvm.runtime.tensor(values))
    got = got.numpy() if hasattr(got, "numpy") else got[0].numpy()
    np.testing.assert_allclose(got, network.run([values])[0], atol=1e-4)


def test_a_bound_that_is_computed_is_left_to_the_importer(tmp_path: Path) -> None:
    path = write_clipped(tmp_path / "clipped.onnx", 17, None, 0.5)
    model = onnx.load(path)
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["x"], ["max1"], keepdims=0))
    for node in model.graph.node:
        if node.op_type == "Clip":
            node.input[2] = "max1"
    onnx.save(model, path)
    network = load_onnx(path, path.name, {}, tmp_path)
    values = np.random.default_rng(1).normal(size=(1, 4, 12, 12)).astype(np.float32)
    machine = relax.VirtualMachine(
        tvm.compile(prepare(network.module, TARGET), target=tvm.target.Target(TARGET)), tvm.cpu()
    )
    got = machine["main"](tvm.runtime.tensor(values))
    got = got.numpy() if hasattr(got, "numpy") else got[0].numpy()
    np.testing.assert_allclose(got, network.run([values])[0], atol=1e-4)
