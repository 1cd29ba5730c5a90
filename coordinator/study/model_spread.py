"""How unsure a cost model is of trials: its ONNX file, run over a corpus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.study.corpus import Corpus


def model_spread(
    path: Path, corpus: Corpus, progress: Callable[[float, str], None] | None = None
) -> NDArray[np.float64]:
    """Compute a model's uncertainty of every trial.

    Nothing is computed while something is timed on this machine: the machine's lock must not be
    held already.

    Args:
        path: ONNX file, as :func:`coordinator.costmodel.export.export` writes it.
        corpus: the trials.
        progress: told the share done and what is being done.

    Returns:
        Float64 [N], at least 0; 0 where the model gives no number.

    Raises:
        TuneFleetError: MODEL_INVALID, it is no cost model for the features of this release.
    """
    return OnnxModel(path).spreads(corpus.arrays, np.arange(len(corpus)), progress)
