"""How unsure a cost model is of trials: its ONNX file, run over a corpus."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.study.corpus import Corpus
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.machine_lock import MachineLock

_BATCH_ROWS = 256
_INPUTS = ("features", "mask", "hardware")
_OUTPUT = "spread"


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
    session = _load(path)
    spread = np.zeros(len(corpus))
    # Programs of equal length side by side cost no padding.
    order = np.argsort(corpus.arrays.stores, kind="stable")
    lock = MachineLock()
    for begin in range(0, len(order), _BATCH_ROWS):
        rows = order[begin : begin + _BATCH_ROWS]
        feeds = dict(zip(_INPUTS, corpus.arrays.padded(rows), strict=True))
        with lock.busy():
            (found,) = _run(session, feeds, path)
        if found.shape != rows.shape:
            raise _invalid(f"{path.name} gives a spread of shape {found.shape} for {rows.shape}")
        spread[rows] = np.maximum(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), 0.0)
        if progress is not None:
            done = begin + len(rows)
            progress(done / len(order), f"asking the model, {done} of {len(order)}")
    return spread


def _load(path: Path) -> Any:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - reads the variable above when imported

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        metadata = dict(session.get_modelmeta().custom_metadata_map)
    except Exception as e:  # onnxruntime has an exception for every kind of damage
        raise _invalid(f"{path} cannot be loaded as ONNX: {e}") from e
    digest = metadata.get("tunefleet.schema_digest")
    if digest != schema_digest():
        raise _invalid(
            f"{path.name} is for features of schema {digest or '(none)'}, not {schema_digest()}"
        )
    return session


def _run(session: Any, feeds: dict[str, Any], path: Path) -> list[Any]:
    try:
        return list(session.run([_OUTPUT], feeds))
    except Exception as e:
        raise _invalid(f"{path.name} cannot be run as a cost model: {e}") from e


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.MODEL_INVALID,
        message,
        hint="Give the ONNX file of a cost model that this release trained.",
    )
