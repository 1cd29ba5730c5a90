"""From torch to the ONNX file agents rank with, proven equal before it leaves the house."""

from __future__ import annotations

import base64
import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Floats
from coordinator.costmodel.feature_sets import of_width
from coordinator.costmodel.model import CostModel
from tunefleet.features import HARDWARE_FEATURES

OPSET = 17
MAX_ABS_DIFF = 1e-4
MAX_FILE_BYTES = 4 << 20
"""Agents on slow links fetch every promoted version."""
_MAX_DISCORDANT = 1e-3
"""Share of pairs two computations may order differently: those equal up to rounding."""
_PARITY_BATCHES = (1, 7, 257)
_PARITY_TOKENS = (1, 2, 15)
"""And as many as the model looks at."""
_GOLDEN_ROWS = 8
_GOLDEN_STORES = 6

Inputs = tuple[Floats, Floats, Floats]
"""Features [B, L, F], mask [B, L], hardware [B, H]; float32."""


class ExportError(Exception):
    """The ONNX file does not compute what the torch model computes, or is not fit to be sent."""


@dataclass(frozen=True)
class Exported:
    """A file that passed the checks."""

    path: Path
    max_diff: float
    """Largest difference between ONNX and torch scores over all shapes tried."""


def export(model: CostModel, path: Path, version: str, seed: int = 0) -> Exported:
    """Write a model as one ONNX file and check it against torch.

    Inputs ``features`` [B, L, F], ``mask`` [B, L], ``hardware`` [B, H]; outputs ``score`` and
    ``spread`` [B]; all float32, B and L free, F by the features the model is for. Metadata:
    ``tunefleet.features`` and ``tunefleet.schema_digest``, which features those are;
    ``tunefleet.model_version``; and ``tunefleet.golden``, by which a reader proves that its
    runtime computes the same.

    Raises:
        ExportError: a score differs by more than 1e-4, programs come in another order, or the file
            is too large. The file is then removed.
    """
    model.eval()
    rng = np.random.default_rng(seed)
    proto = _to_onnx(model, _inputs(model, rng, 3, 4))
    golden = _inputs(model, rng, _GOLDEN_ROWS, _GOLDEN_STORES)
    features = of_width(model.config.token_width)
    metadata = {
        "tunefleet.features": features.name,
        "tunefleet.schema_digest": features.schema(),
        "tunefleet.model_version": version,
        "tunefleet.golden": json.dumps(_golden(golden, _torch_scores(model, golden)[0])),
    }
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ExportError(f"the model takes {path.stat().st_size} bytes")  # noqa: TRY301
        return Exported(path, check_parity(model, path, rng))
    except ExportError:
        path.unlink()
        raise


def check_parity(model: CostModel, path: Path, rng: np.random.Generator) -> float:
    """Run the file in onnxruntime and compare it with torch, over batch sizes and program lengths.

    Returns:
        The largest difference of any score or spread.

    Raises:
        ExportError: a difference above 1e-4, or another order of programs.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415 - reads the variable above when imported

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for batch in _PARITY_BATCHES:
        for stores in (*_PARITY_TOKENS, model.config.max_tokens):
            inputs = _inputs(model, rng, batch, stores)
            names = ("features", "mask", "hardware")
            found = session.run(["score", "spread"], dict(zip(names, inputs, strict=True)))
            wanted = _torch_scores(model, inputs)
            difference = max(float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True))
            # Not "difference > limit": a NaN must not pass.
            if not difference <= MAX_ABS_DIFF:
                raise ExportError(
                    f"ONNX and torch differ by {difference:.2e} for {batch} programs of {stores} "
                    f"stores; {MAX_ABS_DIFF:.0e} is allowed"
                )
            if _discordant(found[0], wanted[0]) > _MAX_DISCORDANT:
                raise ExportError(
                    f"ONNX and torch order {batch} programs of {stores} stores differently"
                )
            worst = max(worst, difference)
    return worst


def _to_onnx(model: CostModel, example: Inputs) -> Any:
    buffer = io.BytesIO()
    batch, program = {0: "batch"}, {0: "batch", 1: "stores"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            tuple(torch.from_numpy(part) for part in example),
            buffer,  # type: ignore[arg-type]
            # Tracing takes 0.2 s of CPU for this network, torch.export 8 s, in every training job;
            # the network has no control flow that tracing could miss.
            dynamo=False,
            opset_version=OPSET,
            input_names=["features", "mask", "hardware"],
            output_names=["score", "spread"],
            dynamic_axes={
                "features": program,
                "mask": program,
                "hardware": batch,
                "score": batch,
                "spread": batch,
            },
        )
    return onnx.load_from_string(buffer.getvalue())


def _inputs(model: CostModel, rng: np.random.Generator, batch: int, stores: int) -> Inputs:
    """Draw inputs spread as the training data was, with unknown hardware and short programs."""
    constants = {k: v.numpy() for k, v in model.normaliser.state_dict().items()}
    shape = (batch, stores, model.config.token_width)
    features = constants["program_mean"] + constants["program_std"] * rng.standard_normal(shape)
    if model.config.scheduled:
        of_rows = {k: v.numpy() for k, v in model.schedule_normaliser.state_dict().items()}
        drawn = rng.standard_normal((batch, model.config.token_width))
        features[:, 0] = of_rows["program_mean"] + of_rows["program_std"] * drawn
    lengths = rng.integers(1, stores + 1, size=batch)
    lengths[0] = stores
    mask = np.arange(stores)[None, :] < lengths[:, None]
    log_hardware = constants["hardware_mean"] + constants["hardware_std"] * rng.standard_normal(
        (batch, len(HARDWARE_FEATURES))
    )
    hardware = np.exp2(np.clip(log_hardware, 0.0, 60.0)) - 1.0
    hardware[rng.random(hardware.shape) < 0.2] = np.nan
    return (
        np.where(mask[:, :, None], features, 0.0).astype(np.float32),
        mask.astype(np.float32),
        hardware.astype(np.float32),
    )


def _torch_scores(model: CostModel, inputs: Inputs) -> tuple[Floats, Floats]:
    with torch.inference_mode():
        score, spread = model(*(torch.from_numpy(part) for part in inputs))
    return score.numpy(), spread.numpy()


def _golden(inputs: Inputs, score: Floats) -> dict[str, object]:
    features, mask, hardware = inputs
    return {
        "features": _base64(features),
        "shape": list(features.shape),
        "mask": _base64(mask),
        "hardware": _base64(hardware),
        "score": _base64(score),
    }


def _base64(values: Floats) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _discordant(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    if len(a) < 2:
        return 0.0
    first, second = np.triu_indices(len(a), 1)
    return float(np.mean((a[first] > a[second]) != (b[first] > b[second])))
