"""A cost model as its ONNX file: what agents rank with is what is judged here."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Floats, Indices, RowArrays
from coordinator.costmodel.feature_sets import (
    STORES,
    FeatureSet,
    of_schema,
    other_schema,
    train_anew,
)
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES
from tunefleet.machine_lock import MachineLock

GOLDEN_TOLERANCE = 1e-4
"""Largest difference between a golden score and ours, as agents allow it."""
SCHEMA_KEY = "tunefleet.schema_digest"
"""Of a file's metadata: the schema of the features it is for."""
_BATCH_ROWS = 256
_INPUTS = ("features", "mask", "hardware")
_LOWEST = -1e30
"""Score of a program for which the model gives no number: agents rank those last."""

Progress = Callable[[float, str], None]
"""Told the share done (0 to 1) and what is being done."""


class OnnxModel:
    """A cost model that passed its self-test here."""

    def __init__(
        self,
        path: Path,
        threads: int = 1,
        allowed: Collection[FeatureSet] = (STORES,),
        *,
        name: str = "",
    ) -> None:
        """Load and check a file.

        Args:
            path: as :func:`coordinator.costmodel.export.export` writes it.
            threads: of one inference.
            allowed: features it may be for; by default those that agents compute.
            name: what errors call it; by default the file's name.

        Raises:
            TuneFleetError: MODEL_INVALID, it is no cost model for these features of this release,
                or computes other scores here than where it was exported.
        """
        self._name = name or path.name
        self._session, metadata = _load(path, threads)
        self.version = metadata.get("tunefleet.model_version", "")
        """What it was called where it was exported."""
        self.features = self._known(metadata.get(SCHEMA_KEY), allowed)
        """What it is for."""
        self._check_golden(metadata.get("tunefleet.golden", ""))

    def scores(
        self, arrays: RowArrays, rows: Indices, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """Score programs.

        Nothing is computed while something is timed on this machine: the machine's lock must not
        be held already.

        Args:
            arrays: N rows.
            rows: int64 [B], which to score.
            progress: told the share done and what is being done.

        Returns:
            Float64 [B], higher is predicted to be faster; comparable within one group only. Where
            the model gives no number, a program ranks last.

        Raises:
            TuneFleetError: MODEL_INVALID, it cannot be run.
        """
        found = self._all("score", arrays, rows, progress)
        return np.nan_to_num(found, nan=_LOWEST, posinf=_LOWEST, neginf=_LOWEST)

    def spreads(
        self, arrays: RowArrays, rows: Indices, progress: Progress | None = None
    ) -> NDArray[np.float64]:
        """Return float64 [B], how unsure it is of programs, at least 0; else as :meth:`scores`."""
        found = self._all("spread", arrays, rows, progress)
        return np.maximum(np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), 0.0)

    def _known(self, digest: str | None, allowed: Collection[FeatureSet]) -> FeatureSet:
        found = of_schema(digest)
        if found is not None and found in allowed:
            return found
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"{self._name} {other_schema(digest, allowed)}",
            hint=train_anew(allowed),
        )

    def _all(
        self, output: str, arrays: RowArrays, rows: Indices, progress: Progress | None
    ) -> NDArray[np.float64]:
        if arrays.features.shape[1] != self.features.width:
            raise self._invalid(
                f"is for {self.features.name} of {self.features.width} values, not for tokens of "
                f"{arrays.features.shape[1]}"
            )
        if arrays.scheduled != self.features.scheduled:
            raise self._invalid("looks for the row of each schedule where there is none")
        values = np.zeros(len(rows))
        # Programs of equal length side by side cost no padding.
        order = np.argsort(arrays.stores[rows], kind="stable")
        lock = MachineLock()
        for begin in range(0, len(order), _BATCH_ROWS):
            some = order[begin : begin + _BATCH_ROWS]
            inputs = arrays.padded(rows[some])
            with lock.busy():
                values[some] = self._run(output, *inputs)
            if progress is not None:
                done = begin + len(some)
                progress(done / len(order), f"asking the model, {done} of {len(order)}")
        return values

    def _run(self, output: str, features: Floats, mask: Floats, hardware: Floats) -> Floats:
        feeds = dict(zip(_INPUTS, (features, mask, hardware), strict=True))
        try:
            (found,) = self._session.run([output], feeds)
        except Exception as e:  # onnxruntime has an exception for every kind of damage
            raise self._invalid(f"cannot be run as a cost model: {_first_line(e)}") from e
        values: Floats = found
        if values.shape != (len(features),):
            raise self._invalid(f"gives a {output} of shape {values.shape} for {len(features)}")
        return values

    def _check_golden(self, text: str) -> None:
        try:
            golden = json.loads(text)
            programs, stores, width = (int(n) for n in golden["shape"])
            features = _array(golden["features"], (programs, stores, width))
            mask = _array(golden["mask"], (programs, stores))
            hardware = _array(golden["hardware"], (programs, len(HARDWARE_FEATURES)))
            expected = _array(golden["score"], (programs,))
            if width != self.features.width or programs < 1:
                raise ValueError(f"their shape is {golden['shape']}")  # noqa: TRY301
        except (ValueError, KeyError, TypeError) as e:
            raise self._invalid(f"carries no usable golden vectors: {_first_line(e)}") from e
        difference = np.abs(self._run("score", features, mask, hardware) - expected)
        if not bool((difference <= GOLDEN_TOLERANCE).all()):  # NaN is no agreement either
            raise self._invalid(
                f"gives scores that differ by up to {difference.max():.3g} from those where it was "
                f"exported; {GOLDEN_TOLERANCE:g} is allowed"
            )

    def _invalid(self, what: str) -> TuneFleetError:
        return invalid_model(f"{self._name} {what}")


def invalid_model(message: str) -> TuneFleetError:
    """Make the error of a cost model that cannot be used."""
    return TuneFleetError(
        Reason.MODEL_INVALID,
        message,
        hint="Give a cost model that this release trained.",
    )


def _load(path: Path, threads: int) -> tuple[Any, dict[str, str]]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - reads the variable above when imported

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Idle threads that spin would disturb whatever is being timed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        return session, dict(session.get_modelmeta().custom_metadata_map)
    except Exception as e:  # onnxruntime has an exception for every kind of damage
        raise invalid_model(f"{path} cannot be loaded as ONNX: {_first_line(e)}") from e


def _array(text: Any, shape: tuple[int, ...]) -> Floats:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(shape)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
