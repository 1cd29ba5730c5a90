"""Rewriting ONNX graphs into what TVM imports well."""

from __future__ import annotations

import math

import numpy as np
import structlog
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    helper,
    numpy_helper,
    version_converter,
)

from coordinator.models.job import first_line

_OLDEST_OPSET = 7
"""Before it, operators broadcast by attribute, which TVM's importer does not read."""
_CONVERTED_OPSET = 13
_LARGEST_FILLED_BYTES = 2**30
"""A few bytes of a file may ask for any amount of memory."""

_log = structlog.get_logger()


def convert_old_opset(model: ModelProto) -> ModelProto:
    """Bring a model older than opset 7 to opset 13, where the converter manages."""
    versions = [entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    if not versions or versions[0] >= _OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _CONVERTED_OPSET)
    except Exception as e:  # it raises plain RuntimeErrors and ConvertErrors from C++
        _log.warning("opset_not_converted", opset=versions[0], error=first_line(e))
        return model


def simplify(graph: GraphProto) -> None:
    """Rewrite sums as additions, drop nodes that do nothing in inference, make filled tensors
    weights, in place.

    TVM imports ``Sum`` as a stack and a reduction, which costs a residual network several times
    the additions, ``Dropout`` as a copy, and ``ConstantOfShape`` as something to compute, into
    which no batch normalisation can be folded.
    """
    # A subgraph refers to outer names, which are not renamed inside it.
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    outputs = {value.name for value in graph.output}
    used = {name for node in graph.node for name in node.input} | outputs
    shapes = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if _does_nothing(node, used) and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Sum" and not node.domain and len(node.input) > 1:
            nodes.extend(_additions(node))
        elif (
            node.op_type == "ConstantOfShape"
            and not node.domain
            and node.output[0] not in outputs
            and (filled := _filled(node, shapes.get(node.input[0]))) is not None
        ):
            graph.initializer.append(filled)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _does_nothing(node: NodeProto, used: set[str]) -> bool:
    if node.domain:
        return False
    if node.op_type == "Dropout":
        mask_used = any(name in used for name in node.output[1:] if name)
        may_train = len(node.input) > 2
        return not mask_used and not may_train
    return bool(node.op_type == "Identity")


def _filled(node: NodeProto, shape: TensorProto | None) -> TensorProto | None:
    """Return what a node fills, as a weight; ``None`` where it is not known or too large."""
    if shape is None:
        return None
    value = np.zeros(1, np.float32)
    for attribute in node.attribute:
        if attribute.name == "value":
            value = numpy_helper.to_array(attribute.t)
    sizes = [int(size) for size in numpy_helper.to_array(shape)]
    if min(sizes, default=1) < 0 or math.prod(sizes) * value.itemsize > _LARGEST_FILLED_BYTES:
        return None
    return numpy_helper.from_array(np.full(sizes, value.flat[0]), node.output[0])


def _additions(node: NodeProto) -> list[NodeProto]:
    total = node.input[0]
    made = []
    last = len(node.input) - 1
    for index, name in enumerate(node.input[1:], 1):
        output = node.output[0] if index == last else f"{node.output[0]}__partial{index}"
        made.append(helper.make_node("Add", [total, name], [output], f"{node.name}_{index}"))
        total = output
    return made
