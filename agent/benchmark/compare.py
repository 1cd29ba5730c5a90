"""Comparing a network's outputs with reference outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt


def max_abs_error(
    outputs: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]]
) -> float:
    """Return the largest absolute difference of any element.

    Raises:
        ValueError: the outputs differ in number or shape, or one is finite where the other is not.
    """
    import numpy as np  # noqa: PLC0415 (only a benchmark's own process pays for it)

    if len(outputs) != len(expected):
        raise ValueError(f"it has {len(outputs)} outputs instead of {len(expected)}")
    largest = 0.0
    for index, (output, reference) in enumerate(zip(outputs, expected, strict=True)):
        if output.shape != reference.shape:
            raise ValueError(
                f"output {index} has the shape {output.shape} instead of {reference.shape}"
            )
        wide, true = output.astype(np.float64), reference.astype(np.float64)
        finite = np.isfinite(true)
        if not np.array_equal(wide[~finite], true[~finite], equal_nan=True) or not np.all(
            np.isfinite(wide[finite])
        ):
            raise ValueError(f"output {index} is not finite where the reference is, or reverse")
        if finite.any():
            largest = max(largest, float(np.abs(wide[finite] - true[finite]).max()))
    return largest
