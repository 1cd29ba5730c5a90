"""Channels-last convolutions, which a CPU's vectors fit better than channels-first ones."""

from __future__ import annotations

import structlog
from tvm import relax
from tvm.ir import IRModule

from coordinator.models.constant_views import fold_constant_views

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
    return fold_constant_views(relax.transform.CanonicalizeBindings()(converted))
