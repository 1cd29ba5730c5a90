"""The import job on ONNX files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_files import AVX2, SSE, import_model, write_conv_net, write_onnx
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("import")
    code, result = import_model(write_conv_net(folder / "net.onnx"), folder, (AVX2, SSE))
    assert code == 0, result
    return result


def test_inputs_and_outputs_are_described(imported: dict[str, Any]) -> None:
    assert imported["inputs"] == [{"name": "x", "shape": [1, 3, 16, 16], "dtype": "float32"}]
    assert imported["outputs"] == [{"name": "y", "shape": [1, 10], "dtype": "float32"}]
    assert imported["operators"] == 15


def test_equal_operators_are_one_task_with_their_number_as_weight(imported: dict[str, Any]) -> None:
    weights = {t["name"]: t["weight"] for t in imported["tasks"] if t["target"] == AVX2}
    assert sorted(w for name, w in weights.items() if "conv2d" in name) == [1, 1, 1, 2]


def test_batch_norm_is_folded_and_sums_are_additions(imported: dict[str, Any]) -> None:
    words = {word.strip("0123456789") for t in imported["tasks"] for word in t["name"].split("_")}
    # The transpositions turn inputs and outputs of channels-last convolutions.
    computing = words - {"transpose", "reshape"}
    assert computing == {"fused", "conv2d", "add", "relu", "mean", "matmul"}


def test_a_filled_weight_is_one_like_any_other(tmp_path: Path) -> None:
    ones = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.1])
    statistics = {name: np.full(4, 0.5, np.float32) for name in ("scale", "shift", "mean", "var")}
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["w"], value=ones),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *statistics], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    weights = statistics | {"sizes": np.array([4, 3, 3, 3], np.int64)}
    path = write_onnx(tmp_path / "filled.onnx", nodes, weights, [1, 3, 8, 8], [1, 4, 6, 6])
    code, result = import_model(path, tmp_path)
    assert code == 0, result
    assert [t["name"] for t in result["tasks"] if "conv2d" in t["name"]] == [
        "fused_conv2d_add_relu"
    ]


def test_every_target_gets_its_tasks_from_the_same_workloads(imported: dict[str, Any]) -> None:
    by_target = {
        target: {t["workload"] for t in imported["tasks"] if t["target"] == target}
        for target in (AVX2, SSE)
    }
    assert by_target[AVX2] == by_target[SSE]
    assert len(by_target[AVX2]) > 4


def test_a_workload_file_holds_the_function_it_is_named_for(imported: dict[str, Any]) -> None:
    import tvm
    from tvm_ffi import structural_hash

    task = imported["tasks"][0]
    module = tvm.ir.load_json(Path(task["path"]).read_text())
    assert f"{structural_hash(module) & 0xFFFFFFFFFFFFFFFF:016x}" == task["workload"]
    assert [variable.name_hint for variable in module.get_global_vars()] == ["main"]


def test_the_costliest_task_comes_first_with_its_flops(imported: dict[str, Any]) -> None:
    first = imported["tasks"][0]
    multiply_adds = 16 * 16 * 8 * 8 * 9
    assert 2 * multiply_adds <= first["flops"] <= 2.1 * multiply_adds


def test_reference_outputs_depend_on_the_input(imported: dict[str, Any]) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(imported["onnx"])
    with np.load(imported["inputs_npz"]) as inputs:
        x = inputs["input_0"]
    with np.load(imported["outputs_npz"]) as outputs:
        expected = outputs["output_0"]
    np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, atol=1e-6)
    assert np.abs(session.run(None, {"x": 0 * x})[0] - expected).max() > 0.01


def test_a_given_shape_fixes_a_symbolic_dimension(tmp_path: Path) -> None:
    model = write_conv_net(tmp_path / "net.onnx", batch="batch")
    code, result = import_model(model, tmp_path, x=[2, 3, 16, 16])
    assert code == 0, result
    assert result["outputs"][0]["shape"] == [2, 10]
    fixed = onnx.load(result["onnx"]).graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_value for dim in fixed] == [2, 3, 16, 16]


def test_a_symbolic_shape_without_a_given_one_names_input_and_dimension(tmp_path: Path) -> None:
    model = write_conv_net(tmp_path / "net.onnx", batch="batch")
    code, result = import_model(model, tmp_path)
    assert code == 1
    assert result["error"]["reason"] == "SHAPE_REQUIRED"
    assert "'x'" in result["error"]["message"]
    assert "batch (axis 0)" in result["error"]["message"]


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ({"z": [1]}, "no input called 'z'"),
        ({"x": [1, 4, 16, 16]}, "does not fit"),
        ({"x": [1, 3, 16]}, "does not fit"),
        ({"x": [0, 3, 16, 16]}, "positive integers"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(
    tmp_path: Path, shapes: dict[str, list[int]], told: str
) -> None:
    model = write_conv_net(tmp_path / "net.onnx", batch="batch")
    code, result = import_model(model, tmp_path, **shapes)
    assert code == 1
    assert result["error"]["reason"] == "INVALID_ARGUMENT"
    assert told in result["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"just text, no model\n", b"\x08\x08" * 40])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "no.onnx").write_bytes(content)
    code, result = import_model(tmp_path / "no.onnx", tmp_path)
    assert code == 1
    assert result["error"]["reason"] == "MODEL_INVALID"
    assert "neither an ONNX file nor" in result["error"]["message"]


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    model = write_conv_net(tmp_path / "net.onnx")
    model.write_bytes(model.read_bytes()[:-50])
    code, result = import_model(model, tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")


def test_a_graph_that_uses_what_nothing_makes_is_refused(tmp_path: Path) -> None:
    model = write_onnx(
        tmp_path / "n.onnx", [helper.make_node("Relu", ["gone"], ["y"])], {}, [1], [1]
    )
    code, result = import_model(model, tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")
    assert "gone" in result["error"]["message"]


def test_weights_in_other_files_are_never_read(tmp_path: Path) -> None:
    model = onnx.load(write_conv_net(tmp_path / "net.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    onnx.save(model, tmp_path / "external.onnx")
    code, result = import_model(tmp_path / "external.onnx", tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")
    assert "other files" in result["error"]["message"]


def test_constants_in_other_files_are_never_read(tmp_path: Path) -> None:
    constant = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1, np.float32))
    )
    tensor = constant.attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    nodes = [constant, helper.make_node("Add", ["x", "c"], ["y"])]
    code, result = import_model(write_onnx(tmp_path / "n.onnx", nodes, {}, [1], [1]), tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")
    assert "other files" in result["error"]["message"]


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["gone-and-lost"], ["y"])]
    model = write_onnx(tmp_path / "n.onnx", nodes, {}, [1], [1])
    model.write_bytes(model.read_bytes().replace(b"gone-and-lost", b"gone-and-\xe5\xe5\xe5t"))
    code, result = import_model(model, tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_INVALID")


def test_an_input_of_a_type_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = onnx.load(write_onnx(tmp_path / "n.onnx", nodes, {}, [1], [1]))
    model.graph.input[0].type.tensor_type.elem_type = 65
    onnx.save(model, tmp_path / "n.onnx")
    code, result = import_model(tmp_path / "n.onnx", tmp_path)
    assert (code, result["error"]["reason"]) in {(1, "MODEL_INVALID"), (1, "MODEL_UNSUPPORTED")}


def test_an_unknown_operator_is_named_with_its_node(tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["x"], ["y"], "frob_7", domain="test.custom")
    code, result = import_model(
        write_onnx(tmp_path / "n.onnx", [node], {}, [1, 4], [1, 4]), tmp_path
    )
    assert code == 1
    assert result["error"]["reason"] == "MODEL_UNSUPPORTED"
    assert "test.custom.Frobnicate (node frob_7)" in result["error"]["message"]


def test_a_use_that_tvm_cannot_import_is_named_with_its_node(tmp_path: Path) -> None:
    weights = {"k": np.array([2], np.int64)}
    # TVM takes only sorted results.
    node = helper.make_node("TopK", ["x", "k"], ["y", "i"], "top_3", sorted=0)
    model = write_onnx(tmp_path / "n.onnx", [node], weights, [1, 4], [1, 2])
    code, result = import_model(model, tmp_path)
    assert code == 1
    assert result["error"]["reason"] == "MODEL_UNSUPPORTED"
    assert "TopK (node top_3)" in result["error"]["message"]
    assert "Traceback" not in result["error"]["message"]


def test_a_model_with_nothing_to_schedule_is_refused(tmp_path: Path) -> None:
    weights = {"s": np.array([4, 1], np.int64)}
    node = helper.make_node("Reshape", ["x", "s"], ["y"])
    model = write_onnx(tmp_path / "n.onnx", [node], weights, [1, 4], [4, 1])
    code, result = import_model(model, tmp_path)
    assert (code, result["error"]["reason"]) == (1, "MODEL_NOTHING_TO_TUNE")
