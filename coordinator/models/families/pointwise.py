"""What memory limits: pooling, reductions, normalisations and chains of elementwise operators."""

from __future__ import annotations

import math

from coordinator.models.families.graph import Graph, activation

_LEAST_ELEMENTS = 2_000
_MOST_ELEMENTS = 3_000_000
_IMAGE_SIZES = (7, 8, 13, 14, 16, 20, 26, 28, 32, 40, 52, 56, 64, 80, 112, 128)


def pooling(graph: Graph) -> None:
    """Add a pooling after and before a convolution, so that it lies between like layouts."""
    while True:
        size, channels = graph.pick(_IMAGE_SIZES), graph.width(8, 1024)
        if _LEAST_ELEMENTS <= size * size * channels <= _MOST_ELEMENTS / 2:
            break
    # A depthwise convolution is the cheapest neighbour that brings its layout along.
    value = graph.input([1, channels, size, size])
    weight = graph.weight([channels, 1, 1, 1])
    value = graph.op("Conv", value, weight, group=channels, kernel_shape=[1, 1])
    kind = graph.pick(("MaxPool", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
    if kind.startswith("Global"):
        graph.output(graph.op("Flatten", graph.op(kind, value)))
        return
    kernel = graph.pick((2, 3, 3, 5))
    pad = graph.pick((0, kernel // 2)) if kernel > 2 else 0
    value = graph.op(
        kind,
        value,
        kernel_shape=[kernel] * 2,
        strides=[graph.pick((1, 2, 2, min(kernel, 3)))] * 2,
        pads=[pad] * 4,
    )
    graph.output(graph.op("Flatten", graph.op("GlobalAveragePool", activation(graph, value))))


def reduction(graph: Graph) -> None:
    """Add a reduction over one or more axes, with what surrounds it in networks."""
    shape = _shape(graph)
    value = activation(graph, graph.input(shape), ("none", "none", "relu", "silu", "sigmoid"))
    first = graph.random.randrange(len(shape))
    axes = list(range(first, len(shape))) if graph.chance(0.6) else [first]
    match graph.pick(("softmax", "softmax", "sum", "mean", "mean", "max", "norm", "variance")):
        case "softmax":
            value = graph.op(graph.pick(("Softmax", "Softmax", "LogSoftmax")), value, axis=-1)
        case "sum":
            value = graph.op("ReduceSum", value, graph.integers(axes), keepdims=1)
        case "mean":
            value = graph.op("ReduceMean", value, axes=axes, keepdims=1)
        case "max":
            value = graph.op("ReduceMax", value, axes=axes, keepdims=1)
        case "norm":
            squares = graph.op("ReduceSum", graph.op("Mul", value, value), graph.integers(axes))
            value = graph.op("Div", value, graph.op("Sqrt", squares))
        case _:
            mean = graph.op("ReduceMean", value, axes=axes, keepdims=1)
            centred = graph.op("Sub", value, mean)
            value = graph.op("ReduceMean", graph.op("Mul", centred, centred), axes=axes)
    graph.output(activation(graph, value, ("none", "none", "relu", "sigmoid")))


def normalisation(graph: Graph) -> None:
    """Add a normalisation as exporters write it: as one operator or in its parts."""
    kind = graph.pick(("layer", "layer", "layer", "rms", "instance", "group"))
    if kind in {"layer", "rms"}:
        rows, width = graph.size(1, 1024), graph.width(32, 2048)
        value = graph.input([1, rows, width])
        if graph.chance(0.4):
            value = graph.op("Add", value, graph.input([1, rows, width]))
        value = _layer(graph, value, width) if kind == "layer" else _rms(graph, value, width)
    else:
        channels, size = 8 * graph.size(2, 64), graph.pick(_IMAGE_SIZES)
        groups = channels if kind == "instance" else graph.pick((4, 8, 8))
        value = graph.input([1, channels, size, size])
        folded = graph.op("Reshape", value, graph.integers([1, groups, -1]))
        scale, shift = graph.weight([groups]), graph.weight([groups])
        folded = graph.op("InstanceNormalization", folded, scale, shift, epsilon=1e-5)
        value = graph.op("Reshape", folded, graph.integers([1, channels, size, size]))
        value = graph.op("Mul", value, graph.weight([1, channels, 1, 1]))
        value = graph.op("Add", value, graph.weight([1, channels, 1, 1]))
    graph.output(activation(graph, value, ("none", "none", "relu", "silu", "gelu")))


def _layer(graph: Graph, value: str, width: int) -> str:
    if graph.chance(0.5):
        scale, shift = graph.weight([width]), graph.weight([width])
        return graph.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=1e-5)
    centred = graph.op("Sub", value, graph.op("ReduceMean", value, axes=[-1], keepdims=1))
    squares = graph.op("Pow", centred, graph.number(2.0))
    variance = graph.op("ReduceMean", squares, axes=[-1], keepdims=1)
    deviation = graph.op("Sqrt", graph.op("Add", variance, graph.number(1e-5)))
    scaled = graph.op("Mul", graph.op("Div", centred, deviation), graph.weight([width]))
    return graph.op("Add", scaled, graph.weight([width]))


def _rms(graph: Graph, value: str, width: int) -> str:
    squares = graph.op("ReduceMean", graph.op("Mul", value, value), axes=[-1], keepdims=1)
    deviation = graph.op("Sqrt", graph.op("Add", squares, graph.number(1e-6)))
    return graph.op("Mul", graph.op("Div", value, deviation), graph.weight([width]))


def elementwise(graph: Graph) -> None:
    """Add a chain of one to six elementwise operators, with broadcasts and data movement."""
    shape = _shape(graph)
    value = graph.input(shape)
    for _ in range(graph.random.randint(1, 6)):
        kind = graph.random.random()
        if kind < 0.35:
            other = (
                graph.input(shape) if graph.chance(0.5) else graph.weight(_broadcast(graph, shape))
            )
            value = graph.op(graph.pick(("Add", "Add", "Mul", "Sub", "Div", "Max")), value, other)
        elif kind < 0.85:
            value = activation(
                graph,
                value,
                ("relu", "relu6", "silu", "hardswish", "gelu", "leaky", "sigmoid", "tanh"),
            )
        elif kind < 0.95:
            value = graph.op(graph.pick(("Abs", "Exp", "Neg", "Sqrt")), value)
        elif len(shape) > 1:
            order = list(range(len(shape)))
            graph.random.shuffle(order)
            value = graph.op("Transpose", value, perm=order)
            shape = [shape[axis] for axis in order]
    graph.output(value)


def _broadcast(graph: Graph, shape: list[int]) -> list[int]:
    return [size if graph.chance(0.5) else 1 for size in shape]


def _shape(graph: Graph) -> list[int]:
    """Return an image's, a sequence's or a matrix's shape."""
    while True:
        match graph.pick(("image", "image", "tokens", "tokens", "heads", "matrix")):
            case "image":
                size = graph.pick(_IMAGE_SIZES)
                shape = [1, graph.width(3, 1024), size, size]
            case "tokens":
                shape = [1, graph.size(8, 1024), graph.width(16, 4096)]
            case "heads":
                rows = graph.pick((16, 32, 49, 64, 77, 128, 197, 256, 384))
                shape = [1, graph.pick((1, 4, 8, 12, 16)), rows, rows]
            case _:
                shape = [graph.size(1, 512), graph.width(10, 8192)]
        if _LEAST_ELEMENTS <= math.prod(shape) <= _MOST_ELEMENTS:
            return shape
