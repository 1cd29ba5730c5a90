"""The smallest network worth a campaign: every round of it takes a few seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_tiny_network(path: Path, seed: int, width: int = 64) -> Path:
    """Write two dense layers with random weights as an ONNX file.

    Args:
        path: the file.
        seed: of the weights.
        width: of the hidden layer; another width makes other tasks.
    """
    import onnx  # noqa: PLC0415 (a second that --help need not wait for)
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        values = rng.normal(scale=shape[-1] ** -0.5, size=shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    nodes = [
        helper.make_node("Gemm", ["x", "w1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 16])],
        [weight("w1", width, 48), weight("w2", 16, width)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
