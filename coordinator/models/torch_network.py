"""Loading torch.export programs into Relax."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import structlog

from coordinator.models.job import first_line
from coordinator.models.network import InputSpec, Network, Shapes, Tensor, run_onnx
from coordinator.models.onnx_network import fix_inputs
from coordinator.models.shapes import Dimension, fix_shapes
from coordinator.models.torch_archive import load_program
from tunefleet.errors import Reason, TuneFleetError

# After torch_archive, which must be the first to import torch.
import torch  # isort: skip

_log = structlog.get_logger()


def load_torch(path: Path, shapes: Shapes, out_dir: Path) -> Network:
    """Read a program that ``torch.export.save`` wrote.

    Args:
        path: the file; it is never changed.
        shapes: sizes for inputs with dynamic dimensions, by argument name.
        out_dir: where the network goes as ONNX, for onnxruntime.

    Raises:
        TuneFleetError: MODEL_INVALID, MODEL_UNSUPPORTED, SHAPE_REQUIRED or INVALID_ARGUMENT.
    """
    program = load_program(path)
    inputs = _inputs(program, shapes)
    # Exporting decomposes the program in place, so the count comes first.
    operators = sum(node.op == "call_function" for node in program.graph.nodes)
    outputs = tuple(str(name) for name in program.graph_signature.user_outputs)
    module = _to_relax(program, inputs)
    exported = _to_onnx(program, inputs, out_dir / "model.onnx")

    def run(values: list[Tensor]) -> list[Tensor]:
        return run_onnx(exported, values) if exported else _run_eagerly(program, values)

    return Network(module, inputs, outputs, operators, exported, run)


def _inputs(program: torch.export.ExportedProgram, shapes: Shapes) -> tuple[InputSpec, ...]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = [str(name) for name in program.graph_signature.user_inputs]
    declared: dict[str, list[Dimension] | None] = {}
    for name in names:
        value = values.get(name)
        if not isinstance(value, torch.Tensor):
            message = f"the input {name!r} is not a tensor"
            raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message)
        declared[name] = [d if isinstance(d, int) else str(d) for d in value.shape]
    fixed = fix_shapes(declared, shapes)
    return tuple(
        InputSpec(name, fixed[name], str(values[name].dtype).removeprefix("torch."))
        for name in names
    )


def _to_relax(program: torch.export.ExportedProgram, inputs: tuple[InputSpec, ...]) -> Any:
    import tvm  # noqa: PLC0415 (a file that is refused should not pay for it)
    from tvm import relax  # noqa: PLC0415
    from tvm.relax.frontend.torch import from_exported_program  # noqa: PLC0415

    try:
        module = from_exported_program(program, unwrap_unit_return_tuple=True)
    except Exception as e:  # the importer raises whatever its converters trip over
        traceback.print_exc()
        node = _failing_node(e)
        where = f" at {node.target} (node {node.name})" if node is not None else ""
        message = f"TVM cannot import the program{where}: {first_line(e)}"
        raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message) from e
    bound: dict[Any, int] = {}
    for parameter, spec in zip(module["main"].params, inputs, strict=True):
        for dimension, size in zip(parameter.ty.shape, spec.shape, strict=True):
            if isinstance(dimension, tvm.ir.Var):
                bound[dimension] = size
    return relax.transform.BindSymbolicVars(bound)(module) if bound else module


def _failing_node(error: BaseException) -> torch.fx.Node | None:
    """Find the node that the importer was at."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node) and node.op == "call_function":
            found = node
    return found


def _to_onnx(
    program: torch.export.ExportedProgram, inputs: tuple[InputSpec, ...], path: Path
) -> Path | None:
    try:
        torch.onnx.export(program, (), str(path), dynamo=True, external_data=False, verbose=False)
        model = onnx.load(path)
        names = [value.name for value in model.graph.input]
        shapes = {name: spec.shape for name, spec in zip(names, inputs, strict=True)}
        fix_inputs(model, shapes)
        onnx.save(model, path)
    except Exception as e:  # a network without an ONNX form can still be tuned
        _log.warning("onnx_baseline_missing", error=first_line(e))
        path.unlink(missing_ok=True)
        return None
    return path


def _run_eagerly(program: torch.export.ExportedProgram, inputs: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        outputs = program.module()(*(torch.from_numpy(value) for value in inputs))
    values = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(value) for value in values]
