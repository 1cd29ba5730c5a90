"""The check job: whether a model that somebody sent is what it claims to be.

Spec: ``{"onnx": path, "checkpoint": path}``.

Result: ``{"named": what it was called where it was exported, "onnx_max_diff": largest difference
between its ONNX file's scores and its checkpoint's}``.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from coordinator.confinement import DATASET_MEMORY_BYTES
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.export import MAX_FILE_BYTES, ExportError, check_parity
from coordinator.costmodel.feature_sets import STEPS, STORES, of_schema, other_schema, train_anew
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.onnx_model import SCHEMA_KEY, OnnxModel, invalid_model
from coordinator.models.job import Progress, first_line, run_job
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, MAX_ROWS, PROGRAM_FEATURES_PER_STORE
from tunefleet.machine_lock import MachineLock

_CPU_S = 300
"""The checks take ten seconds; what needs more is no cost model of ours."""
_MAX_CHECKPOINT_BYTES = 4 * MAX_FILE_BYTES
_MAX_SIZE = 1024
"""Widths and numbers of blocks or heads; ours are a tenth of it."""
_SHAPES = {
    "features": (None, None, PROGRAM_FEATURES_PER_STORE),
    "mask": (None, None),
    "hardware": (None, len(HARDWARE_FEATURES)),
}


def check_model(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: MODEL_INVALID, with the reason why.
    """
    onnx_path, checkpoint_path = Path(spec["onnx"]), Path(spec["checkpoint"])
    lock = MachineLock()
    progress(0.1, "checking the ONNX file")
    with lock.busy():
        check_graph(onnx_path)
        named = OnnxModel(onnx_path).version
    progress(0.4, "checking the checkpoint")
    with lock.busy():
        model = load_checkpoint(checkpoint_path)
    progress(0.6, "comparing their scores")
    with lock.busy():
        try:
            difference = check_parity(model, onnx_path, np.random.default_rng(0))
        except ExportError as e:
            raise invalid_model(
                f"the checkpoint's scores are not those of the ONNX file: {e}"
            ) from e
        except Exception as e:  # onnxruntime has an exception for every kind of damage
            raise invalid_model(f"the ONNX file cannot be run: {first_line(e)}") from e
    return {"named": named, "onnx_max_diff": difference}


def check_graph(path: Path) -> None:
    """Refuse an ONNX file that is no plain cost model, before anything of it is run.

    Raises:
        TuneFleetError: MODEL_INVALID.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise invalid_model(f"the ONNX file takes {size} bytes; {MAX_FILE_BYTES} are the most")
    try:
        model = onnx.load_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except Exception as e:  # protobuf's and ONNX's own
        raise invalid_model(f"the ONNX file is damaged: {first_line(e)}") from e
    digest = {entry.key: entry.value for entry in model.metadata_props}.get(SCHEMA_KEY)
    if digest is not None and of_schema(digest) is None:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"the ONNX file {other_schema(digest, (STORES,))}",
            hint=train_anew((STORES,)),
        )
    if model.functions or any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        raise invalid_model("the ONNX file has operators that are not ONNX's own")
    attributes = [a for node in model.graph.node for a in node.attribute]
    if any(a.HasField("g") or a.graphs for a in attributes):
        raise invalid_model("the ONNX file has control flow, which a cost model has not")
    # Such a tensor is read from a file that it names, wherever the model is loaded.
    tensors = [*model.graph.initializer, *(a.t for a in attributes), *_listed(attributes)]
    if any(t.external_data for t in tensors) or model.graph.sparse_initializer:
        raise invalid_model("the ONNX file keeps weights elsewhere than in itself")
    found = {value.name: _shape(value) for value in model.graph.input}
    shapes = {name: tuple(map(_known, shape)) for name, shape in found.items()}
    if shapes == _SHAPES | {"features": (None, None, STEPS.width)}:
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            "the model ranks by schedule steps, and agents compute values of buffer stores: it can "
            "be evaluated and studied, but agents cannot rank with it",
            hint="Train one for agents with `tunefleet model train DATASET --out DIR`, on a "
            "dataset that has stores.",
        )
    if shapes != _SHAPES:
        raise invalid_model(f"the ONNX file takes {found}, not features, mask and hardware")
    outputs = {value.name for value in model.graph.output}
    if outputs != {"score", "spread"}:
        raise invalid_model(f"the ONNX file gives {sorted(outputs)}, not score and spread")


def load_checkpoint(path: Path) -> CostModel:
    """Make a model of a checkpoint that may be anything.

    Raises:
        TuneFleetError: MODEL_INVALID.
    """
    try:
        _check_size(path)
        checkpoint = Checkpoint.load(path)
        _check_config(checkpoint.config)
        return checkpoint.build()
    except Exception as e:  # numpy's, zipfile's and torch's own
        raise invalid_model(f"the checkpoint cannot be used: {first_line(e)}") from e


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MAX_CHECKPOINT_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, {_MAX_CHECKPOINT_BYTES} are the most")


def _check_config(config: ModelConfig) -> None:
    known = asdict(ModelConfig())
    for name, value in asdict(config).items():
        if type(value) is not type(known[name]):
            raise TypeError(f"{name} is {value!r}")
        if isinstance(value, int) and not isinstance(value, bool) and not 1 <= value <= _MAX_SIZE:
            raise ValueError(f"{name} is {value}; 1 to {_MAX_SIZE} are allowed")
    if not 0.0 <= config.dropout < 1.0:
        raise ValueError(f"dropout is {config.dropout}; 0 to 1 is allowed")
    if (config.token_width, config.max_tokens) != (PROGRAM_FEATURES_PER_STORE, MAX_ROWS):
        raise ValueError(
            f"it takes {config.max_tokens} tokens of {config.token_width} values, not "
            f"{MAX_ROWS} rows of {PROGRAM_FEATURES_PER_STORE}"
        )
    if not config.scheduled:
        raise ValueError("it takes stores alone, without the row of their schedule")


def _listed(attributes: list[Any]) -> list[Any]:
    return [tensor for a in attributes for tensor in a.tensors]


def _shape(value: Any) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim]


def _known(size: int | str) -> int | None:
    return size if isinstance(size, int) else None


if __name__ == "__main__":
    sys.exit(
        run_job(
            check_model,
            blame=Reason.MODEL_INVALID,
            memory_bytes=DATASET_MEMORY_BYTES,
            cpu_s=_CPU_S,
        )
    )
