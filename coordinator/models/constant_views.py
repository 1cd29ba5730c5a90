"""Reshaping and transposing weights now: TVM's FoldConstant would compile a kernel for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import IRModule
from tvm.relax.dpl import is_const, is_op, rewrite_call, wildcard


def fold_constant_views(module: IRModule) -> IRModule:
    """Replace what reshapes or transposes a constant by the constant that it makes.

    Args:
        module: Relax with constant weights, operators not yet legalised; ``main`` is replaced.
    """
    # A transposition of something reshaped is one of a constant once that is done.
    module["main"] = _fold_transpositions(_fold_reshapes(module["main"]))
    return module


def _fold_reshapes(function: Any) -> Any:
    weight, shape = is_const(), wildcard()
    reshaped = is_op("relax.reshape")(weight, shape)

    def rewrite(expr: Any, matched: Any) -> Any:
        wanted = matched[shape]
        if not isinstance(wanted, relax.ShapeExpr):
            return expr
        value = matched[weight].value.numpy()
        return _constant(np.reshape(value, [int(size) for size in wanted]))

    return rewrite_call(reshaped, rewrite, function)


def _fold_transpositions(function: Any) -> Any:
    weight = is_const()
    transposed = is_op("relax.permute_dims")(weight)

    def rewrite(_: Any, matched: Any) -> Any:
        axes = matched[transposed].attrs.axes
        order = None if axes is None else [int(axis) for axis in axes]
        return _constant(np.transpose(matched[weight].value.numpy(), order))

    return rewrite_call(transposed, rewrite, function)


def _constant(value: Any) -> Any:
    return relax.const(tvm.runtime.tensor(np.ascontiguousarray(value)), value.dtype.name)
