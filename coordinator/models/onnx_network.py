"""Loading ONNX files into Relax."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from coordinator.models.job import first_line
from coordinator.models.network import InputSpec, Network, Shapes, run_onnx
from coordinator.models.onnx_graph import convert_old_opset, simplify
from coordinator.models.shapes import UNNAMED, Dimension, fix_shapes
from tunefleet.errors import Reason, TuneFleetError

_SIZE_LIMIT_BYTES = 2**31 - 1
"""Protobuf's own limit for one message."""


def load_onnx(path: Path, name: str, shapes: Shapes, out_dir: Path) -> Network:
    """Read an ONNX file that holds all its weights.

    Args:
        path: the file; it is never changed.
        name: what messages call it.
        shapes: sizes for inputs whose dimensions are symbolic.
        out_dir: where a copy with fixed shapes goes, if one is needed.

    Raises:
        TuneFleetError: MODEL_INVALID, MODEL_UNSUPPORTED, SHAPE_REQUIRED or INVALID_ARGUMENT.
    """
    model = read_onnx(path, name)
    inputs = fix_inputs(model, shapes)
    fixed = path
    if shapes:
        fixed = out_dir / "model.onnx"
        onnx.save(model, fixed)
    operators = len(model.graph.node)
    output_names = tuple(value.name for value in model.graph.output)
    module = to_relax(prepare_graph(model, name))
    return Network(
        module, inputs, output_names, operators, fixed, lambda values: run_onnx(fixed, values)
    )


def read_onnx(path: Path, name: str) -> onnx.ModelProto:
    """Read and validate an ONNX file, without following references to other files.

    Raises:
        TuneFleetError: MODEL_INVALID.
    """
    if path.stat().st_size > _SIZE_LIMIT_BYTES:
        raise _invalid(f"{name} is larger than the 2 GiB that one ONNX file may have")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as e:
        raise _invalid(f"{name} is neither an ONNX file nor a torch.export program") from e
    if not model.graph.node or not model.opset_import:
        raise _invalid(f"{name} is neither an ONNX file nor a torch.export program")
    nodes = [node for function in model.functions for node in function.node]
    tensors = (*_tensors_of_graph(model.graph), *_tensors_of_nodes(nodes))
    if any(t.data_location == onnx.TensorProto.EXTERNAL or t.external_data for t in tensors):
        raise _invalid(f"{name} keeps weights in other files; save it as one file")
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as e:
        raise _invalid(f"{name} is not a valid ONNX model: {first_line(e)}") from e
    return model


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in attribute.graphs:
            yield from _tensors_of_graph(graph)
        if attribute.HasField("g"):
            yield from _tensors_of_graph(attribute.g)


def prepare_graph(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Bring a model to a form that TVM imports well; it may be changed in place.

    Raises:
        TuneFleetError: MODEL_INVALID, weights are not what they say.
    """
    model = convert_old_opset(model)
    try:
        simplify(model.graph)
    except (ValueError, TypeError, LookupError) as e:
        raise _invalid(f"{name} is not a valid ONNX model: {first_line(e)}") from e
    return model


def fix_inputs(model: onnx.ModelProto, shapes: Shapes) -> tuple[InputSpec, ...]:
    """Write fixed shapes into a model's inputs, and return the inputs in order.

    Raises:
        TuneFleetError: SHAPE_REQUIRED, INVALID_ARGUMENT, or MODEL_UNSUPPORTED for other inputs
            than tensors.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    values = [value for value in model.graph.input if value.name not in weights]
    for value in values:
        if not value.type.HasField("tensor_type"):
            message = f"the input {value.name!r} is not a tensor"
            raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message)
    fixed = fix_shapes({value.name: _declared(value) for value in values}, shapes)
    specs = []
    for value in values:
        tensor = value.type.tensor_type
        del tensor.shape.dim[:]
        for size in fixed[value.name]:
            tensor.shape.dim.add(dim_value=size)
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name).name
        except (KeyError, TypeError) as e:
            message = f"the input {value.name!r:.80} has elements of a type that NumPy has not"
            raise TuneFleetError(Reason.MODEL_UNSUPPORTED, message) from e
        specs.append(InputSpec(value.name, fixed[value.name], dtype))
    return tuple(specs)


def _declared(value: onnx.ValueInfoProto) -> list[Dimension] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    # A size of 0 is how some exporters write "unknown".
    return [dim.dim_value or dim.dim_param or UNNAMED for dim in tensor.shape.dim]


def to_relax(model: onnx.ModelProto) -> Any:
    """Convert a validated ONNX model with fixed shapes to Relax with constant weights.

    Raises:
        TuneFleetError: MODEL_UNSUPPORTED, naming the node.
    """
    import tvm  # noqa: PLC0415 (a broken file is refused without paying for it)
    from tvm.relax.frontend.onnx import from_onnx  # noqa: PLC0415

    from coordinator.models.onnx_clip import clip_as_operators  # noqa: PLC0415

    try:
        with clip_as_operators():
            return from_onnx(model, keep_params_in_input=False)
    except tvm.error.OpNotImplemented as e:
        raise _unsupported(model, str(e)) from e
    except Exception as e:  # the importer raises whatever its converters trip over
        traceback.print_exc()
        node = _failing_node(e)
        where = f" at {_describe(node)}" if node is not None else ""
        raise TuneFleetError(
            Reason.MODEL_UNSUPPORTED, f"TVM cannot import the model{where}: {first_line(e)}"
        ) from e


def _unsupported(model: onnx.ModelProto, message: str) -> TuneFleetError:
    # TVM lists the operators, sorted in no way, after the last colon.
    names = set(re.split(r"[,\s]+", message.splitlines()[-1].rpartition(":")[2].strip()))
    nodes = [node for node in model.graph.node if node.op_type in names]
    first = {node.op_type: node for node in reversed(nodes)}
    told = "; ".join(_describe(first[name]) for name in sorted(first)) or ", ".join(sorted(names))
    return TuneFleetError(Reason.MODEL_UNSUPPORTED, f"TVM cannot import the operator {told}")


def _failing_node(error: BaseException) -> onnx.NodeProto | None:
    """Find the node that the importer was at: it only prints the operator's kind."""
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, onnx.NodeProto):
            found = node
    return found


def _describe(node: onnx.NodeProto) -> str:
    name = node.name or f"that makes {node.output[0]!r}" if node.output else node.name
    domain = f"{node.domain}." if node.domain else ""
    return f"{domain}{node.op_type} (node {name})"


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.MODEL_INVALID, message)
