"""The import job on torch.export programs, honest ones and others."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_files import import_model

Edit = Callable[[dict[str, bytes]], None]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.classify = torch.nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.conv(image)))
        return self.classify(features.mean((2, 3)))


def save(path: Path, *, dynamic: bool = False) -> Path:
    torch.manual_seed(5)
    net = Net()
    net(torch.randn(8, 3, 12, 12) + 1)  # gives the norm statistics that are not 0 and 1
    batch = {"image": {0: torch.export.Dim("batch")}} if dynamic else None
    example = (torch.randn(2, 3, 12, 12),)
    torch.export.save(torch.export.export(net.eval(), example, dynamic_shapes=batch), path)
    return path


def tamper(path: Path, edit: Edit) -> Path:
    """Rewrite an archive; ``edit`` changes its files, named without the top folder."""
    with zipfile.ZipFile(path) as archive:
        top = archive.namelist()[0].split("/")[0]
        files = {n.removeprefix(f"{top}/"): archive.read(n) for n in archive.namelist()}
    edit(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{top}/{name}", content)
    return path


def edit_json(name: str, edit: Callable[[Any], None]) -> Edit:
    def apply(files: dict[str, bytes]) -> None:
        content = json.loads(files[name])
        edit(content)
        files[name] = json.dumps(content).encode()

    return apply


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("torch")
    code, result = import_model(save(folder / "net.pt2"), folder)
    assert code == 0, result
    return result


def test_a_program_is_imported_with_its_norm_folded(imported: dict[str, Any]) -> None:
    assert imported["inputs"] == [{"name": "image", "shape": [2, 3, 12, 12], "dtype": "float32"}]
    assert imported["outputs"][0]["shape"] == [2, 5]
    assert "fused_conv2d_add_relu" in {task["name"] for task in imported["tasks"]}


def test_the_reference_is_what_the_program_computes(
    imported: dict[str, Any], tmp_path: Path
) -> None:
    program = torch.export.load(str(save(tmp_path / "net.pt2")))
    with np.load(imported["inputs_npz"]) as inputs:
        expected = program.module()(torch.from_numpy(inputs["input_0"])).detach().numpy()
    with np.load(imported["outputs_npz"]) as outputs:
        np.testing.assert_allclose(outputs["output_0"], expected, atol=1e-4)
    assert imported["onnx"].endswith("model.onnx")


def test_a_dynamic_dimension_needs_a_shape(tmp_path: Path) -> None:
    code, result = import_model(save(tmp_path / "net.pt2", dynamic=True), tmp_path)
    assert (code, result["error"]["reason"]) == (1, "SHAPE_REQUIRED")
    assert "'image'" in result["error"]["message"]


def test_a_dynamic_dimension_is_fixed_by_a_shape(tmp_path: Path) -> None:
    model = save(tmp_path / "net.pt2", dynamic=True)
    code, result = import_model(model, tmp_path, image=[4, 3, 12, 12])
    assert code == 0, result
    assert result["outputs"][0]["shape"] == [4, 5]
    assert len(result["tasks"]) > 2


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def pickled_weight(mark: Path) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        config = json.loads(files["data/weights/model_weights_config.json"])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        files["data/weights/model_weights_config.json"] = json.dumps(config).encode()
        files[f"data/weights/{first['path_name']}"] = pickle.dumps(Bomb(mark))

    return edit


def pickled_sample_input(mark: Path) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        files["data/sample_inputs/model.pt"] = pickle.dumps(Bomb(mark))

    return edit


def foreign_operator(mark: Path) -> Edit:
    def edit(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    return edit_json("models/model.json", edit)


def evaluated_shape(mark: Path) -> Edit:
    def edit(program: Any) -> None:
        tensors = program["graph_module"]["graph"]["tensor_values"]
        expression = f"__import__('pathlib').Path('{mark}').touch()"
        tensors["image"]["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": None}}

    return edit_json("models/model.json", edit)


def name_with_code(mark: Path) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        name = f"image=open('{mark}', 'w')"
        text = files["models/model.json"].decode()
        files["models/model.json"] = text.replace('"image"', json.dumps(name)).encode()

    return edit


def compiled_code(mark: Path) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        files["data/aotinductor/model/net.so"] = b"\x7fELF"

    return edit


@pytest.mark.parametrize(
    "attack",
    [
        pickled_weight,
        pickled_sample_input,
        foreign_operator,
        evaluated_shape,
        name_with_code,
        compiled_code,
    ],
)
def test_an_archive_that_would_run_code_is_refused(
    tmp_path: Path, attack: Callable[[Path], Edit]
) -> None:
    mark = tmp_path / "attacked"
    model = tamper(save(tmp_path / "net.pt2"), attack(mark))
    code, result = import_model(model, tmp_path)
    assert code == 1
    assert result["error"]["reason"] in {"MODEL_INVALID", "MODEL_UNSUPPORTED"}
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["models/model.json", "data/weights/model_weights_config.json", "archive_version"]
)
def test_an_archive_with_a_damaged_part_is_refused(tmp_path: Path, name: str) -> None:
    def spoil(files: dict[str, bytes]) -> None:
        files[name] = b'{"broken'

    code, result = import_model(tamper(save(tmp_path / "net.pt2"), spoil), tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "net.pt")
    code, result = import_model(tmp_path / "net.pt", tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")
    assert "torch.export" in result["error"]["message"]


class Answer(dict[str, torch.Tensor]):
    """What a network may return that only its own package knows."""


def test_outputs_of_an_unknown_class_are_explained(tmp_path: Path) -> None:
    class Wordy(Net):
        def forward(self, image: torch.Tensor) -> Any:
            return Answer(logits=super().forward(image))

    torch.utils._pytree.register_pytree_node(
        Answer,
        lambda answer: (list(answer.values()), list(answer)),
        lambda values, names: Answer(zip(names, values, strict=True)),
        serialized_type_name="some.package.Answer",
        to_dumpable_context=json.dumps,
        from_dumpable_context=json.loads,
    )
    path = tmp_path / "wordy.pt2"
    example = (torch.randn(2, 3, 12, 12),)
    torch.export.save(torch.export.export(Wordy().eval(), example), path)
    # Forgotten again, as in a process that never imported the network's package.
    torch.utils._pytree._deregister_pytree_node(Answer)

    code, result = import_model(path, tmp_path)
    assert code == 1
    assert result["error"]["reason"] == "MODEL_INVALID"
    assert "export a module that returns plain tensors" in result["error"]["message"]
