"""Building ONNX graphs, and the choices that all families share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET = 17
_IR_VERSION = 8

Choice = TypeVar("Choice")


class Graph:
    """An ONNX graph in the making, with the source of its random choices."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._values = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[str] = []
        self._names = 0

    def input(self, shape: Sequence[int]) -> str:
        """Add an input of float32 and return its name."""
        name = self._name("input")
        self._inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, shape: Sequence[int]) -> str:
        """Add a constant with random values in [0.5, 1.5), which suit a variance as well."""
        values = self._values.random(tuple(shape), dtype=np.float32) + np.float32(0.5)
        return self._constant(values)

    def integers(self, values: Sequence[int]) -> str:
        """Add a constant of int64, such as axes or a shape."""
        return self._constant(np.asarray(values, np.int64))

    def number(self, value: float) -> str:
        """Add a scalar of float32."""
        return self._constant(np.asarray(value, np.float32))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return that."""
        name = self._name(kind.lower())
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def output(self, name: str) -> None:
        """Make a value an output."""
        self._outputs.append(name)

    def model(self) -> onnx.ModelProto:
        """Return the model; its outputs' shapes are left to the importer."""
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in self._outputs]
        graph = helper.make_graph(self._nodes, "sample", self._inputs, outputs, self._weights)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)

    def chance(self, share: float) -> bool:
        """Return True with a probability."""
        return self.random.random() < share

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """Return one of the choices."""
        return self.random.choice(choices)

    def size(self, low: int, high: int) -> int:
        """Return a size, small ones as likely as large ones: log-uniform."""
        return round(math.exp(self.random.uniform(math.log(low), math.log(high))))

    def width(self, low: int, high: int) -> int:
        """Return a number of channels or features: mostly a multiple of 8, as in networks."""
        size = self.size(low, high)
        step = self.pick((8, 8, 16, 16, 32, 64, 1))
        return max(low, size // step * step) if size >= step else size

    def _constant(self, values: Any) -> str:
        name = self._name("weight")
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _name(self, what: str) -> str:
        self._names += 1
        return f"{what}_{self._names}"


def _gelu(graph: Graph, value: str) -> str:
    scaled = graph.op("Div", value, graph.number(math.sqrt(2.0)))
    shifted = graph.op("Add", graph.op("Erf", scaled), graph.number(1.0))
    return graph.op("Mul", graph.op("Mul", value, shifted), graph.number(0.5))


def _hardswish(graph: Graph, value: str) -> str:
    return graph.op("Mul", value, graph.op("HardSigmoid", value, alpha=1 / 6, beta=0.5))


_ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "none": lambda _, value: value,
    "relu": lambda graph, value: graph.op("Relu", value),
    "relu6": lambda graph, value: graph.op("Clip", value, graph.number(0.0), graph.number(6.0)),
    "silu": lambda graph, value: graph.op("Mul", value, graph.op("Sigmoid", value)),
    "hardswish": _hardswish,
    "gelu": _gelu,
    "leaky": lambda graph, value: graph.op("LeakyRelu", value, alpha=0.1),
    "sigmoid": lambda graph, value: graph.op("Sigmoid", value),
    "tanh": lambda graph, value: graph.op("Tanh", value),
}
_OF_CONVOLUTIONS = ("none", "relu", "relu", "relu", "relu6", "silu", "hardswish", "gelu", "leaky")


def activation(graph: Graph, value: str, choices: Sequence[str] = _OF_CONVOLUTIONS) -> str:
    """Add one of the named activation functions, spelt as exporters spell it."""
    return _ACTIVATIONS[graph.pick(choices)](graph, value)
