"""Output channels rounded up to whole vectors, where that costs next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.dpl import is_const, is_op, rewrite_call, wildcard

LANES = 16
"""Values of 32 bits in the widest vector of a CPU (AVX-512); narrower ones divide it."""

_MOST_ADDED = 0.05
"""Share of channels that padding may add. Classifiers of 1000 classes get 1008; 24 channels would
get 32, a third more work."""

_CHANNEL_AXIS = 1
"""Of NCHW data; of OIHW weights it is the first."""

_SPATIAL_AXES = [2, 3]


def pad_channels(module: IRModule) -> IRModule:
    """Give classifying convolutions whose channels fill no whole vectors a few channels of zeros.

    Schedules split loops into factors, and no factor of 1000 is a multiple of a vector's 16 lanes.
    The zeros are cut off again behind the global average, where little is left to copy. Other
    convolutions stay as they are: cutting all of their output would cost what was won, and when it
    was fused with the convolution, the best of 32 schedules was slower by more than a half.

    Args:
        module: Relax with constant weights, batch norms folded, channels first; ``main`` is
            replaced.

    Returns:
        The module, which computes the same.
    """
    for activated in (True, False):
        for with_bias in (True, False):
            module["main"] = _pad(module["main"], activated=activated, with_bias=with_bias)
    return module


def _pad(function: Any, *, activated: bool, with_bias: bool) -> Any:
    data, weight, shift = wildcard(), is_const(), is_const()
    conv = is_op("relax.nn.conv2d")(data, weight)
    convolved = is_op("relax.add")(conv, shift) if with_bias else conv
    whole = is_op("relax.nn.relu")(convolved) if activated else convolved
    average = is_op("relax.mean")(whole)

    def rewrite(expr: Any, matched: Any) -> Any:
        attrs, averaged = matched[conv].attrs, matched[average].attrs
        kernel = matched[weight].value.numpy()
        channels = kernel.shape[0]
        added = -channels % LANES
        plain = (attrs.data_layout, attrs.kernel_layout, int(attrs.groups)) == ("NCHW", "OIHW", 1)
        if not plain or not 0 < added <= _MOST_ADDED * channels:
            return expr
        if averaged.axis is None or [int(axis) for axis in averaged.axis] != _SPATIAL_AXES:
            return expr
        made = relax.Call(
            matched[conv].op, [matched[data], relax.const(_with_zeros(kernel, 0, added))], attrs
        )
        if with_bias:
            bias = matched[shift].value.numpy()
            if bias.shape != (1, channels, 1, 1):
                return expr
            made = relax.op.add(made, relax.const(_with_zeros(bias, _CHANNEL_AXIS, added)))
        if activated:
            made = relax.op.nn.relu(made)
        made = relax.op.mean(made, _SPATIAL_AXES, keepdims=bool(averaged.keepdims))
        return relax.op.strided_slice(
            made, axes=[_CHANNEL_AXIS], begin=[0], end=[channels], assume_inbound=True
        )

    return rewrite_call(average, rewrite, function)


def _with_zeros(value: npt.NDArray[Any], axis: int, added: int) -> npt.NDArray[Any]:
    widths = [(0, added if number == axis else 0) for number in range(value.ndim)]
    return np.pad(value, widths)
