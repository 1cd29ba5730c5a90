"""The cost model: an ONNX file, checked before it may rank anything."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.search.evolution import FloatArray
from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE, schema_digest

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when onnxruntime is imported
import onnxruntime as ort

GOLDEN_TOLERANCE = 1e-4
"""Largest difference between a golden score and ours; more could swap close candidates."""


_AT_ONCE = 64
"""Programs; of 32 to 2,560 this and 128 were the fastest on a core with 1 MiB of L2."""


class ModelError(ValueError):
    """The model is not one to rank candidates by."""


class Ranker:
    """A cost model that passed its self-test on this machine."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load and check a model.

        Args:
            path: the ONNX file.
            threads: threads of one inference.

        Raises:
            ModelError: it cannot be loaded, was made for another feature schema, or computes other
                scores here than where it was exported.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, threads)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Idle threads that spin would disturb whatever is being timed.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        except Exception as e:
            raise ModelError(f"onnxruntime cannot load the cost model: {e}") from e
        self.version = metadata.get("tunefleet.model_version", "")
        digest = metadata.get("tunefleet.schema_digest")
        if digest != schema_digest():
            raise ModelError(
                f"the cost model is for feature schema {digest}, this agent has {schema_digest()}"
            )
        self._check_golden(metadata.get("tunefleet.golden", ""))

    def rank(
        self, features: Sequence[FloatArray], hardware: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """Score programs for one device.

        Args:
            features: raw features of at least one program, each float32 [1 + stores, 172]: its
                schedule's row, then its stores.
            hardware: the raw hardware vector; NaN where unknown.

        Returns:
            Scores (higher is faster; -inf where the model gives no number) and spreads (>= 0),
            float32 [programs] each.

        Raises:
            ModelError: the model failed on them.
        """
        score = np.zeros(len(features), np.float32)
        spread = np.zeros(len(features), np.float32)
        # Programs of equal length side by side cost no padding, and few at once stay in the cache.
        order = np.argsort([len(rows) for rows in features], kind="stable")
        for start in range(0, len(order), _AT_ONCE):
            some = order[start : start + _AT_ONCE]
            inputs = _padded([features[i] for i in some])
            score[some], spread[some] = self._run(
                *inputs, np.asarray([hardware] * len(some), np.float32)
            )
        return (
            np.nan_to_num(score, nan=-np.inf, posinf=-np.inf, neginf=-np.inf),
            np.maximum(np.nan_to_num(spread, nan=0, posinf=0, neginf=0), 0),
        )

    def _run(
        self, features: FloatArray, mask: FloatArray, hardware: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        feeds = {"features": features, "mask": mask, "hardware": hardware}
        try:
            score, spread = self._session.run(["score", "spread"], feeds)
        except Exception as e:
            raise ModelError(f"the cost model cannot be run: {e}") from e
        if score.shape != (len(features),) or spread.shape != (len(features),):
            raise ModelError(
                f"the cost model gives shapes {score.shape} and {spread.shape} "
                f"for {len(features)} programs"
            )
        return score, spread

    def _check_golden(self, text: str) -> None:
        try:
            golden = json.loads(text)
            programs, rows, width = (int(n) for n in golden["shape"])
            if width != PROGRAM_FEATURES_PER_STORE or programs < 1:
                raise ModelError(f"the cost model's golden vectors have shape {golden['shape']}")
            features = _array(golden["features"], (programs, rows, width))
            mask = _array(golden["mask"], (programs, rows))
            hardware = _array(golden["hardware"], (programs, len(HARDWARE_FEATURES)))
            expected = _array(golden["score"], (programs,))
        except (ValueError, KeyError, TypeError) as e:
            if isinstance(e, ModelError):
                raise
            raise ModelError(f"the cost model carries no usable golden vectors: {e}") from e
        score, _ = self._run(features, mask, hardware)
        difference = np.abs(score - expected)
        if not bool((difference <= GOLDEN_TOLERANCE).all()):  # NaN is no agreement either
            raise ModelError(
                f"the cost model's scores differ here by up to {difference.max():.3g} from those "
                f"where it was exported; {GOLDEN_TOLERANCE:g} is allowed"
            )


def _padded(features: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Stack programs with zero rows after the real ones: [B, L, 172], and the mask [B, L].

    L is that of the longest, the schedule's row included: from 1 to ``MAX_ROWS``.
    """
    longest = max(len(rows) for rows in features)
    stacked = np.zeros((len(features), longest, PROGRAM_FEATURES_PER_STORE), np.float32)
    mask = np.zeros((len(features), longest), np.float32)
    for place, rows in enumerate(features):
        stacked[place, : len(rows)] = rows
        mask[place, : len(rows)] = 1
    return stacked, mask


def _array(text: Any, shape: tuple[int, ...]) -> FloatArray:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(shape)
