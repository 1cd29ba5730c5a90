"""Workloads and stand-in cost models for the tests of the search."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE, schema_digest

TARGET = json.dumps(
    {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2}, sort_keys=True, separators=(",", ":")
)
"""The search compiles nothing, so any CPU will do."""

HARDWARE = (float("nan"),) * len(HARDWARE_FEATURES)


@dataclass(frozen=True)
class Workload:
    """A workload as an agent finds it on disk."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        """The module as TVM's JSON."""
        return self.path.read_text()


def write_workload(folder: Path, name: str, outputs: Sequence[Any]) -> Workload:
    """Store the module that computes tensor expressions, inputs first and output last."""
    import tvm
    from tvm import te
    from tvm_ffi import structural_hash

    module = tvm.IRModule({"main": te.create_prim_func(list(outputs))})
    path = folder / f"{name}.json"
    path.write_text(tvm.ir.save_json(module))
    return Workload(f"{structural_hash(module) & 0xFFFFFFFFFFFFFFFF:016x}", path)


def matmul(folder: Path, size: int = 128) -> Workload:
    """A square matrix product with a ReLU: tens of thousands of schedules."""
    from tvm import te, tirx

    a = te.placeholder((size, size), name="a")
    b = te.placeholder((size, size), name="b")
    k = te.reduce_axis((0, size), name="k")
    c = te.compute((size, size), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="c")
    d = te.compute((size, size), lambda i, j: te.max(c[i, j], tirx.const(0.0, "float32")), name="d")
    return write_workload(folder, f"matmul{size}", [a, b, d])


def elementwise(folder: Path) -> Workload:
    """An addition of two tensors: a handful of schedules."""
    from tvm import te

    a = te.placeholder((64, 64), name="a")
    b = te.placeholder((64, 64), name="b")
    c = te.compute((64, 64), lambda i, j: a[i, j] + b[i, j], name="c")
    return write_workload(folder, "add", [a, b, c])


def write_model(
    path: Path,
    *,
    feature: int,
    scale: float = -1e-6,
    digest: str | None = None,
    golden_error: float = 0.0,
) -> Path:
    """Store a model whose score is one feature, summed over all rows and scaled.

    A program's rows are its schedule's and its stores'.

    Its spread is one tenth of the score's magnitude.
    """
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["features", "index"], ["column"], axis=2),
            helper.make_node("Mul", ["column", "mask"], ["masked"]),
            helper.make_node("ReduceSum", ["masked", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["sum", "scale"], ["score"]),
            helper.make_node("Abs", ["score"], ["magnitude"]),
            helper.make_node("Mul", ["magnitude", "tenth"], ["spread"]),
        ],
        "stand_in",
        [
            _info("features", ["B", "L", PROGRAM_FEATURES_PER_STORE]),
            _info("mask", ["B", "L"]),
            _info("hardware", ["B", len(HARDWARE_FEATURES)]),
        ],
        [_info("score", ["B"]), _info("spread", ["B"])],
        [
            numpy_helper.from_array(np.asarray(feature, np.int64), "index"),
            numpy_helper.from_array(np.asarray([1], np.int64), "axes"),
            numpy_helper.from_array(np.asarray(scale, np.float32), "scale"),
            numpy_helper.from_array(np.asarray(0.1, np.float32), "tenth"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((4, 3, PROGRAM_FEATURES_PER_STORE)).astype("<f4")
    mask = np.asarray([[1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]], "<f4")
    hardware = np.full((4, len(HARDWARE_FEATURES)), np.nan, "<f4")
    score = ((features[:, :, feature] * mask).sum(axis=1) * scale + golden_error).astype("<f4")
    golden = {
        "features": _b64(features),
        "shape": list(features.shape),
        "mask": _b64(mask),
        "hardware": _b64(hardware),
        "score": _b64(score),
    }
    helper.set_model_props(
        model,
        {
            "tunefleet.schema_digest": schema_digest() if digest is None else digest,
            "tunefleet.model_version": "stand-in",
            "tunefleet.golden": json.dumps(golden),
        },
    )
    onnx.save(model, str(path))
    return path


def _info(name: str, shape: Sequence[Any]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _b64(array: Any) -> str:
    return base64.b64encode(array.tobytes()).decode()
