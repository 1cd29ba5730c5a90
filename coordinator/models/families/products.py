"""Matrix products: with weights, between activations, and in attention."""

from __future__ import annotations

import math

from coordinator.models.families.graph import Graph, activation

_LEAST_FLOPS = 1e6
_MOST_FLOPS = 4e8
_DENSE_ACTIVATIONS = ("none", "none", "relu", "gelu", "gelu", "silu", "tanh", "sigmoid")


def dense(graph: Graph) -> None:
    """Add a layer of a perceptron or of a transformer, often with the one that follows."""
    while True:
        rows = graph.pick((1, 1, 4, 16, 32, 49, 50, 64, 128, 128, 196, 197, 256, 384, 512))
        inner, outer = graph.width(16, 4096), graph.width(10, 4096)
        if _LEAST_FLOPS <= 2.0 * rows * inner * outer <= _MOST_FLOPS:
            break
    # Convolutional networks end in Gemm on [batch, features]; transformers add to [1, rows, inner].
    as_gemm = rows <= 32 and graph.chance(0.7)
    value = start = graph.input([rows, inner] if as_gemm else [1, rows, inner])
    if not as_gemm and graph.chance(0.3):
        start = value = _layer_norm(graph, value, inner)
    value = _linear(graph, value, inner, outer, as_gemm=as_gemm)
    value = activation(graph, value, _DENSE_ACTIVATIONS)
    if graph.chance(0.5):
        value = _linear(graph, value, outer, inner, as_gemm=as_gemm)
        if graph.chance(0.7):
            value = graph.op("Add", value, start)
    graph.output(value)


def batch_matmul(graph: Graph) -> None:
    """Add a batched product of two activations, one of which may come transposed."""
    while True:
        batch = graph.pick((1, 2, 4, 6, 8, 12, 12, 16))
        rows, inner, columns = (graph.width(8, 768) for _ in range(3))
        if _LEAST_FLOPS <= 2.0 * batch * rows * inner * columns <= _MOST_FLOPS:
            break
    left = graph.input([batch, rows, inner])
    if graph.chance(0.5):
        right = graph.op("Transpose", graph.input([batch, columns, inner]), perm=[0, 2, 1])
    else:
        right = graph.input([batch, inner, columns])
    value = graph.op("MatMul", left, right)
    if graph.chance(0.5):
        value = graph.op("Mul", value, graph.number(1 / math.sqrt(inner)))
    if graph.chance(0.4):
        value = graph.op("Add", value, graph.input([batch, rows, columns]))
    graph.output(activation(graph, value, ("none", "none", "relu", "tanh", "sigmoid")))


def attention(graph: Graph) -> None:
    """Add scaled dot-product attention, with its projections or without."""
    while True:
        heads, depth = graph.pick((1, 2, 3, 4, 6, 8, 12, 16)), graph.pick((16, 32, 32, 64, 64, 80))
        rows = graph.pick((16, 32, 49, 50, 64, 77, 96, 128, 128, 196, 197, 256, 384))
        # Attention to other tokens than one's own, as in decoders.
        others = rows if graph.chance(0.8) else graph.pick((32, 77, 128, 256))
        if _LEAST_FLOPS <= 4.0 * heads * rows * others * depth <= _MOST_FLOPS / 2:
            break
    width = heads * depth
    tokens, memory = graph.input([1, rows, width]), ""
    if others != rows:
        memory = graph.input([1, others, width])
    projected = 8.0 * rows * width * width <= _MOST_FLOPS
    query = _heads(graph, tokens, rows, heads, depth, projected=projected)
    key = _heads(graph, memory or tokens, others, heads, depth, projected=projected, swap=True)
    values = _heads(graph, memory or tokens, others, heads, depth, projected=projected)
    if graph.chance(0.5):
        query = graph.op("Mul", query, graph.number(depth**-0.5))
        scores = graph.op("MatMul", query, key)
    else:
        scores = graph.op("Div", graph.op("MatMul", query, key), graph.number(depth**0.5))
    if graph.chance(0.5):
        scores = graph.op("Add", scores, graph.input([1, 1, rows, others]))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
    mixed = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = graph.op("Reshape", mixed, graph.integers([1, rows, width]))
    if projected:
        mixed = graph.op("Add", _linear(graph, mixed, width, width, as_gemm=False), tokens)
    graph.output(mixed)


def _heads(
    graph: Graph,
    tokens: str,
    rows: int,
    heads: int,
    depth: int,
    *,
    projected: bool,
    swap: bool = False,
) -> str:
    """Split [1, rows, heads * depth] into heads; ``swap`` puts the depth before the rows."""
    width = heads * depth
    value = _linear(graph, tokens, width, width, as_gemm=False) if projected else tokens
    value = graph.op("Reshape", value, graph.integers([1, rows, heads, depth]))
    return graph.op("Transpose", value, perm=[0, 2, 3, 1] if swap else [0, 2, 1, 3])


def _linear(graph: Graph, value: str, inner: int, outer: int, *, as_gemm: bool) -> str:
    if as_gemm:
        transposed = graph.chance(0.7)
        weight = graph.weight([outer, inner] if transposed else [inner, outer])
        return graph.op("Gemm", value, weight, graph.weight([outer]), transB=int(transposed))
    value = graph.op("MatMul", value, graph.weight([inner, outer]))
    return graph.op("Add", value, graph.weight([outer])) if graph.chance(0.85) else value


def _layer_norm(graph: Graph, value: str, width: int) -> str:
    scale, shift = graph.weight([width]), graph.weight([width])
    return graph.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=1e-5)
