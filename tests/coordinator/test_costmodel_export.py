from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from costmodel_rows import fitted, synthetic_rows

from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.export import MAX_FILE_BYTES, ExportError, check_parity, export
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.onnx_model import OnnxModel
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE, schema_digest


def make_model(seed: int) -> CostModel:
    return fitted(to_arrays(synthetic_rows(seed=1, tasks=1, per_task=30)), seed=seed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    result = export(make_model(0), path, "v7")
    assert result.max_diff <= 1e-4
    return path


def test_it_is_one_small_file(exported: Path) -> None:
    assert [path.name for path in exported.parent.iterdir()] == ["model.onnx"]
    assert exported.stat().st_size < MAX_FILE_BYTES


def test_inputs_and_outputs_are_as_agents_expect(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    found = {v.name: v.shape for v in [*session.get_inputs(), *session.get_outputs()]}
    assert found == {
        "features": ["batch", "stores", PROGRAM_FEATURES_PER_STORE],
        "mask": ["batch", "stores"],
        "hardware": ["batch", len(HARDWARE_FEATURES)],
        "score": ["batch"],
        "spread": ["batch"],
    }


def test_the_metadata_names_schema_and_version(exported: Path) -> None:
    metadata = {p.key: p.value for p in onnx.load(exported).metadata_props}
    assert metadata["tunefleet.schema_digest"] == schema_digest()
    assert metadata["tunefleet.model_version"] == "v7"


def test_onnxruntime_reproduces_the_golden_scores(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    golden = json.loads(session.get_modelmeta().custom_metadata_map["tunefleet.golden"])
    batch, stores, _ = golden["shape"]
    arrays = {
        name: np.frombuffer(base64.b64decode(golden[name]), "<f4")
        for name in ("features", "mask", "hardware", "score")
    }
    mask = arrays["mask"].reshape(batch, stores)
    hardware = arrays["hardware"].reshape(batch, len(HARDWARE_FEATURES))
    features = arrays["features"].reshape(golden["shape"])
    (score,) = session.run(["score"], {"features": features, "mask": mask, "hardware": hardware})
    assert batch >= 8
    assert len(set(mask.sum(axis=1))) > 1
    assert np.isnan(hardware).any()
    assert np.abs(score - arrays["score"]).max() <= 1e-4


def test_real_values_on_the_borders_of_bins_score_alike(exported: Path) -> None:
    # Drawn inputs hardly ever meet a border; training values, which set the borders, do.
    model = make_model(0)
    arrays = to_arrays(synthetic_rows(seed=1, tasks=1, per_task=30))
    inputs = arrays.padded(np.arange(30))
    names = ("features", "mask", "hardware")
    found = onnxruntime.InferenceSession(exported).run(None, dict(zip(names, inputs, strict=True)))
    with torch.inference_mode():
        wanted = model(*(torch.from_numpy(part) for part in inputs))
    for a, b in zip(found, wanted, strict=True):
        assert np.abs(a - b.numpy()).max() <= 1e-4


@pytest.mark.parametrize("scheduled", [True, False])
def test_programs_of_one_token_score_alike(scheduled: bool, tmp_path: Path) -> None:
    arrays = to_arrays(synthetic_rows(seed=1, tasks=1, per_task=30))
    if not scheduled:
        arrays = arrays.without_schedules()
    model = fitted(arrays, ModelConfig(scheduled=scheduled))
    path = tmp_path / "model.onnx"
    export(model, path, "v1")
    features, _, hardware = arrays.padded(np.arange(30))
    one = (features[:, :1], np.ones((30, 1), np.float32), hardware)
    names = ("features", "mask", "hardware")
    found = onnxruntime.InferenceSession(path).run(None, dict(zip(names, one, strict=True)))
    with torch.inference_mode():
        wanted = model(*(torch.from_numpy(part) for part in one))
    for a, b in zip(found, wanted, strict=True):
        assert np.isfinite(a).all()
        assert np.abs(a - b.numpy()).max() <= 1e-4


def test_stores_without_their_schedule_are_not_ranked(exported: Path) -> None:
    arrays = to_arrays(synthetic_rows(seed=1, tasks=1, per_task=30))
    model = OnnxModel(exported)
    assert len(set(model.scores(arrays, np.arange(30)))) == 30
    with pytest.raises(TuneFleetError, match="row of each schedule") as raised:
        model.scores(arrays.without_schedules(), np.arange(30))
    assert raised.value.reason is Reason.MODEL_INVALID


def test_a_file_of_another_model_is_refused(exported: Path) -> None:
    with pytest.raises(ExportError, match="differ by"):
        check_parity(make_model(1), exported, np.random.default_rng(0))


def test_a_model_that_gives_nan_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    model = make_model(0)
    with torch.no_grad():
        model.heads.weight.fill_(torch.nan)
    with pytest.raises(ExportError, match="differ by nan"):
        export(model, tmp_path / "model.onnx", "v1")
    assert list(tmp_path.iterdir()) == []
