"""Convolutions in the motifs that networks are made of.

Sampling goes on until the work of the convolution in the middle is that of one in a network, from
a million operations (a late layer of a small one) to some hundreds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from coordinator.models.families.graph import Graph, activation

_IMAGE_SIZES = (7, 7, 8, 10, 12, 13, 14, 14, 16, 19, 20, 24, 26, 28, 28, 32, 38, 40, 48, 52, 56)
_LARGE_IMAGE_SIZES = (56, 64, 75, 80, 96, 104, 112, 112, 128, 150, 160, 192, 224, 224, 256)
_LEAST_FLOPS = 1e6
_MOST_FLOPS = 4e8


@dataclass(frozen=True)
class _Conv:
    """One convolution; sizes without batch and channels."""

    channels: int
    filters: int
    sizes: tuple[int, ...]
    kernel: int
    stride: int = 1
    groups: int = 1
    dilation: int = 1

    @property
    def out_sizes(self) -> tuple[int, ...]:
        reach = self.dilation * (self.kernel - 1) + 1
        pad = reach // 2
        return tuple((size + 2 * pad - reach) // self.stride + 1 for size in self.sizes)

    @property
    def flops(self) -> float:
        taps = math.prod([self.kernel] * len(self.sizes)) * self.channels // self.groups
        return 2.0 * math.prod(self.out_sizes) * taps * self.filters

    @property
    def realistic(self) -> bool:
        return min(self.out_sizes) > 0 and _LEAST_FLOPS <= self.flops <= _MOST_FLOPS


def _add(
    graph: Graph, value: str, conv: _Conv, *, activate: bool = True, residual: str = ""
) -> str:
    """Add a convolution with a batch normalisation or a bias, a residual sum, an activation."""
    dims = len(conv.sizes)
    pad = conv.dilation * (conv.kernel - 1) // 2
    normalised = graph.chance(0.5)
    weight = graph.weight([conv.filters, conv.channels // conv.groups] + [conv.kernel] * dims)
    biased = [] if normalised or graph.chance(0.2) else [graph.weight([conv.filters])]
    value = graph.op(
        "Conv",
        value,
        weight,
        *biased,
        kernel_shape=[conv.kernel] * dims,
        strides=[conv.stride] * dims,
        dilations=[conv.dilation] * dims,
        pads=[pad] * (2 * dims),
        group=conv.groups,
    )
    if normalised:
        statistics = [graph.weight([conv.filters]) for _ in range(4)]
        value = graph.op("BatchNormalization", value, *statistics)
    if residual:
        value = graph.op("Add", value, residual)
    return activation(graph, value) if activate else value


def _finish(graph: Graph, value: str) -> None:
    """End as image networks do: an output in the middle would get a transposition fused in."""
    graph.output(graph.op("Flatten", graph.op("GlobalAveragePool", value)))


def _image(graph: Graph) -> tuple[int, int]:
    size = graph.pick(_IMAGE_SIZES if graph.chance(0.75) else _LARGE_IMAGE_SIZES)
    return (size, size) if graph.chance(0.85) else (size, graph.pick(_IMAGE_SIZES))


def _batch(graph: Graph) -> int:
    return 1 if graph.chance(0.9) else graph.pick((2, 4, 8))


def _start(graph: Graph, conv: _Conv) -> str:
    return graph.input([1 if conv.flops > 1e8 else _batch(graph), conv.channels, *conv.sizes])


def plain(graph: Graph) -> None:
    """Add a chain of convolutions, or a block of two with a residual sum."""
    while True:
        kernel = graph.pick((1, 1, 3, 3, 3, 5, 7))
        channels, filters = graph.width(8, 1024), graph.width(8, 1024)
        dilation = graph.pick((1, 1, 1, 1, 1, 2, 3)) if kernel == 3 else 1
        conv = _Conv(channels, filters, _image(graph), kernel, dilation=dilation)
        if conv.realistic:
            break
    value = start = _start(graph, conv)
    value = _add(graph, value, conv)
    back = _Conv(filters, channels, conv.out_sizes, graph.pick((1, 3)))
    if graph.chance(0.6) and back.realistic:
        residual = start if conv.out_sizes == conv.sizes and graph.chance(0.6) else ""
        value = _add(graph, value, back, residual=residual)
    _finish(graph, value)


def strided(graph: Graph) -> None:
    """Add a stem, or the first block of a stage, both of which shrink the image."""
    while True:
        if graph.chance(0.3):
            size = graph.pick(_LARGE_IMAGE_SIZES)
            kernel, stride = graph.pick(((3, 2), (7, 2), (4, 4), (5, 2)))
            conv = _Conv(3, graph.width(8, 128), (size, size), kernel, stride)
        else:
            kernel = graph.pick((1, 1, 3, 3, 3, 5))
            conv = _Conv(graph.width(8, 768), graph.width(8, 1024), _image(graph), kernel, 2)
        if conv.realistic:
            break
    value = _add(graph, _start(graph, conv), conv)
    if graph.chance(0.3):
        value = graph.op("MaxPool", value, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    _finish(graph, value)


def grouped(graph: Graph) -> None:
    """Add a bottleneck whose middle is grouped, as in ResNeXt and RegNet."""
    while True:
        groups = graph.pick((2, 4, 8, 8, 16, 32))
        width = groups * graph.pick((4, 8, 8, 12, 16, 24, 32, 48))
        stride = graph.pick((1, 1, 1, 2))
        conv = _Conv(width, width, _image(graph), graph.pick((3, 3, 3, 5)), stride, groups)
        if conv.realistic:
            break
    _bottleneck(graph, conv, outer=graph.pick((width, 2 * width)))


def depthwise(graph: Graph) -> None:
    """Add an inverted bottleneck with a depthwise middle, as in MobileNet."""
    while True:
        width = graph.width(16, 960)
        stride = graph.pick((1, 1, 1, 2))
        conv = _Conv(width, width, _image(graph), graph.pick((3, 3, 3, 5, 7)), stride, width)
        if _LEAST_FLOPS / 10 <= conv.flops <= _MOST_FLOPS / 4:
            break
    _bottleneck(graph, conv, outer=max(8, width // graph.pick((1, 2, 4, 6)) // 8 * 8))


def _bottleneck(graph: Graph, middle: _Conv, outer: int) -> None:
    expand = _Conv(outer, middle.channels, middle.sizes, 1)
    project = _Conv(middle.filters, outer, middle.out_sizes, 1)
    value = start = graph.input([_batch(graph), outer, *middle.sizes])
    value = _add(graph, value, expand)
    value = _add(graph, value, middle)
    residual = start if middle.out_sizes == middle.sizes and graph.chance(0.6) else ""
    value = _add(graph, value, project, activate=graph.chance(0.4), residual=residual)
    _finish(graph, value)


def one_dimensional(graph: Graph) -> None:
    """Add convolutions over a sequence."""
    while True:
        kernel = graph.pick((1, 3, 3, 3, 5, 7, 9, 15))
        length = graph.size(32, 4000)
        channels, filters = graph.width(1, 512), graph.width(8, 768)
        depth = graph.chance(0.2)
        conv = _Conv(
            channels,
            channels if depth else filters,
            (length,),
            kernel,
            graph.pick((1, 1, 1, 2, 4)),
            channels if depth else 1,
        )
        if conv.realistic:
            break
    value = _add(graph, _start(graph, conv), conv)
    graph.output(value)


def three_dimensional(graph: Graph) -> None:
    """Add convolutions over a few frames."""
    while True:
        frames, size = graph.pick((4, 8, 8, 16)), graph.pick((7, 14, 14, 16, 28, 28, 32, 56))
        kernel = graph.pick((1, 3, 3, 3))
        channels, filters = graph.width(3, 256), graph.width(8, 256)
        conv = _Conv(channels, filters, (frames, size, size), kernel, graph.pick((1, 1, 1, 2)))
        if conv.realistic:
            break
    value = _add(graph, _start(graph, conv), conv)
    graph.output(value)
