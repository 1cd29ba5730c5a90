"""Importing ``Clip`` as operators, where TVM makes opaque kernels of it.

What follows a convolution as a kernel can neither be fused into it nor change its layout with it:
in a MobileNet every ReLU6 would cost two transpositions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend


@contextmanager
def clip_as_operators() -> Iterator[None]:
    """Have TVM's importer make ``maximum`` and ``minimum`` of every ``Clip`` with known bounds."""
    converter = onnx_frontend.Clip
    before = {name: vars(converter)[name] for name in _VERSIONS}
    for name in _VERSIONS:
        setattr(converter, name, classmethod(_clip_unless(getattr(converter, name))))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(converter, name, method)


_VERSIONS = ("_impl_v1", "_impl_v11", "_impl_v13")
"""TVM's method for each version of the operator since which it means something else."""


def _clip_unless(otherwise: Any) -> Any:
    def convert(
        _: Any, builder: Any, inputs: Sequence[Any], attributes: Mapping[str, Any], params: Any
    ) -> Any:
        dtype = str(inputs[0].ty.dtype)
        low = _bound(inputs, 1, attributes.get("min"))
        high = _bound(inputs, 2, attributes.get("max"))
        if low is _UNKNOWN or high is _UNKNOWN:
            return otherwise(builder, inputs, attributes, params)
        result = inputs[0]
        if low is not None:
            result = builder.normalize(relax.op.maximum(result, relax.const(low, dtype)))
        if high is not None:
            result = builder.normalize(relax.op.minimum(result, relax.const(high, dtype)))
        return result

    return convert


_UNKNOWN = object()


def _bound(inputs: Sequence[Any], place: int, attribute: Any) -> Any:
    """Return a bound as a number; ``None`` where there is none, ``_UNKNOWN`` if it is computed.

    NaN bounds nothing, as in onnxruntime.
    """
    value = inputs[place] if len(inputs) > place else attribute
    if isinstance(value, tvm.ir.GenericConst):
        value = value.value.numpy()
    elif isinstance(value, relax.Expr):
        return _UNKNOWN
    if value is None:
        return None
    number = np.asarray(value).reshape(-1)[0]
    return None if np.isnan(number) else number.item()
