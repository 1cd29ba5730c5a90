"""Channels-last convolutions, which a CPU's vectors fit better than channels-first ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog
import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.dpl import is_const, is_op, rewrite_call

_log = structlog.get_logger()

_CHANNELS_LAST = {"relax.nn.conv2d": ["NHWC", "HWIO"]}
"""Vectors run over channels, whose number divides well; rows of 13 or 27 pixels do not."""


def channels_last(module: IRModule) -> IRModule:
    """Convert two-dimensional convolutions and what lies between them to channels-last.

    Inputs and outputs keep their layout: transpositions are added at the edges.

    Args:
        module: Relax with constant weights, operators not yet legalised.

    Returns:
        The converted module, or the given one where TVM cannot convert it.
    """
    try:
        converted = relax.transform.ConvertLayout(_CHANNELS_LAST)(module)
    except Exception as e:  # a pass raises what it likes on graphs it was not made for
        _log.warning("layout_kept", error=str(e).splitlines()[-1] if str(e) else repr(e))
        return module
    converted = relax.transform.CanonicalizeBindings()(converted)
    converted["main"] = _transpose_constants(converted["main"])
    return converted


def _transpose_constants(function: Any) -> Any:
    """Transpose weights now; FoldConstant would compile a kernel for each."""
    weight = is_const()
    transposed = is_op("relax.permute_dims")(weight)

    def rewrite(_: Any, matched: Any) -> Any:
        axes = matched[transposed].attrs.axes
        value = matched[weight].value.numpy()
        order = None if axes is None else [int(axis) for axis in axes]
        return relax.const(
            tvm.runtime.tensor(np.ascontiguousarray(np.transpose(value, order))), value.dtype.name
        )

    return rewrite_call(transposed, rewrite, function)
