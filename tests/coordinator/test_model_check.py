"""Models that somebody sent: what is one of ours passes, anything else is refused with a reason."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from model_folders import untrained, write_model
from onnx import TensorProto, helper

from coordinator.costmodel import check_job
from coordinator.costmodel.export import MAX_FILE_BYTES
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.model_files import CHECKPOINT_FILE, ONNX_FILE


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "mine", untrained())


@pytest.fixture
def folder(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    return Path(shutil.copytree(original, tmp_path / "sent"))


def check(folder: Path) -> dict[str, object]:
    spec = {"onnx": str(folder / ONNX_FILE), "checkpoint": str(folder / CHECKPOINT_FILE)}
    return check_job.check_model(spec, lambda *_: None)


def test_a_model_of_ours_passes(folder: Path) -> None:
    result = check(folder)
    assert result["named"] == "mine"
    assert 0 <= float(str(result["onnx_max_diff"])) <= 1e-4


Damage = Callable[[Path], None]


def changed_onnx(change: Callable[[onnx.ModelProto], None]) -> Damage:
    def apply(folder: Path) -> None:
        model = onnx.load(folder / ONNX_FILE)
        change(model)
        (folder / ONNX_FILE).write_bytes(model.SerializeToString())

    return apply


def cut_short(folder: Path) -> None:
    path = folder / ONNX_FILE
    path.write_bytes(path.read_bytes()[:1000])


def no_onnx(folder: Path) -> None:
    (folder / ONNX_FILE).write_bytes(b"not a model at all")


def too_large(folder: Path) -> None:
    with (folder / ONNX_FILE).open("ab") as file:
        file.truncate(MAX_FILE_BYTES + 1)


def with_metadata(name: str, value: str) -> Damage:
    def change(model: onnx.ModelProto) -> None:
        [entry] = [entry for entry in model.metadata_props if entry.key == name]
        entry.value = value

    return changed_onnx(change)


def other_golden(folder: Path) -> None:
    model = onnx.load(folder / ONNX_FILE)
    [entry] = [e for e in model.metadata_props if e.key == "tunefleet.golden"]
    golden = json.loads(entry.value)
    golden["features"], golden["mask"] = golden["features"][::-1], golden["mask"]
    entry.value = json.dumps(golden)
    (folder / ONNX_FILE).write_bytes(model.SerializeToString())


def weights_elsewhere(model: onnx.ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def strange_operator(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.strange", 1))
    node = helper.make_node("Strange", [], ["nothing"], domain="com.strange")
    model.graph.node.insert(0, node)


def control_flow(model: onnx.ModelProto) -> None:
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=value)],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
    )
    always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Constant", [], ["always"], value=always),
        helper.make_node("If", ["always"], ["nothing"], then_branch=branch, else_branch=branch),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def other_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 164


def other_checkpoint(folder: Path) -> None:
    write_model(folder.parent / "other", untrained(seed=1))
    shutil.copy(folder.parent / "other" / CHECKPOINT_FILE, folder)


def no_archive(folder: Path) -> None:
    (folder / CHECKPOINT_FILE).write_bytes(b"not an archive")


def pickled(folder: Path) -> None:
    np.savez(folder / CHECKPOINT_FILE, meta=np.array([{"a": 1}], dtype=object))


def bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / CHECKPOINT_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", bytes(64 << 20))


def with_config(**changes: object) -> Damage:
    def apply(folder: Path) -> None:
        with np.load(folder / CHECKPOINT_FILE, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays["meta"].tobytes())
        meta["config"] |= changes
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        (folder / CHECKPOINT_FILE).write_bytes(buffer.getvalue())

    return apply


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (cut_short, "ONNX file is damaged"),
        (no_onnx, "ONNX file is damaged"),
        (too_large, "bytes"),
        (with_metadata("tunefleet.schema_digest", "0" * 16), "schema 0000000000000000"),
        (with_metadata("tunefleet.golden", "{}"), "no usable golden vectors"),
        (other_golden, "no usable golden vectors|differ by"),
        (changed_onnx(weights_elsewhere), "damaged|elsewhere"),
        (changed_onnx(strange_operator), "not ONNX's own|damaged"),
        (changed_onnx(control_flow), "control flow"),
        (changed_onnx(other_input), "takes"),
        (other_checkpoint, "not those of the ONNX file"),
        (no_archive, "checkpoint cannot be used"),
        (pickled, "checkpoint cannot be used"),
        (bomb, "unpacks to"),
        (with_config(width=10**9), "width is 1000000000"),
        (with_config(blocks=512), "not those of this release's network"),
        (with_config(blocks="3"), "blocks is '3'"),
        (with_config(attention_heads=512), "checkpoint cannot be used"),
        (with_config(pooling=7), "checkpoint cannot be used"),
        (with_config(token_width=32), "32 values, not"),
        (with_config(surprise=1), "surprise"),
        (with_config(dropout=1.5), "dropout is 1.5"),
        (with_config(dropout=float("nan")), "dropout is nan"),
        (with_config(max_tokens=32), "32 tokens"),
        (with_config(scheduled=False), "without the row of their schedule"),
    ],
)
def test_anything_else_is_refused(folder: Path, damage: Damage, why: str) -> None:
    damage(folder)
    with pytest.raises(TuneFleetError, match=why) as raised:
        check(folder)
    assert raised.value.reason is Reason.MODEL_INVALID
