"""A user's network after loading, whichever format it came in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tensor = npt.NDArray[Any]
Shapes = Mapping[str, Sequence[int]]
"""Shapes the user gave, by input name."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a network, its shape fixed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """numpy's name of the element type."""


@dataclass(frozen=True)
class Network:
    """A network in Relax, with what is needed to check and to time it elsewhere."""

    module: Any
    """IRModule whose ``main`` takes the inputs in order; weights are constants."""
    inputs: tuple[InputSpec, ...]
    output_names: tuple[str, ...]
    operators: int
    """Operators in the user's own file."""
    onnx: Path | None
    """The network for onnxruntime, shapes fixed; ``None`` where it cannot be expressed."""
    run: Callable[[list[Tensor]], list[Tensor]]
    """Computes reference outputs without TVM."""


def random_inputs(inputs: Sequence[InputSpec], seed: int) -> list[Tensor]:
    """Draw one tensor an input: standard normal floats, and zeros and ones for all else.

    Zeros and ones are valid as token ids, segment ids, masks and indices alike.
    """
    rng = np.random.default_rng(seed)
    drawn: list[Tensor] = []
    for spec in inputs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            drawn.append(rng.standard_normal(spec.shape).astype(dtype))
        else:
            drawn.append(rng.integers(0, 2, spec.shape).astype(dtype))
    return drawn


def run_onnx(path: Path, inputs: list[Tensor]) -> list[Tensor]:
    """Compute a network's outputs with onnxruntime on the CPU."""
    import onnxruntime as ort  # noqa: PLC0415 (torch programs may do without)

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return [np.asarray(value) for value in session.run(None, dict(zip(names, inputs, strict=True)))]
