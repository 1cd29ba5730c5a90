"""Example networks with seeded random weights, so that a numerical check on them can fail.

The architectures ship with the ``onnx`` package, whose own files hold constant weights: their
outputs are uniform whatever the input, and any miscompilation would go unnoticed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import numpy_helper

EXAMPLES = ("squeezenet", "resnet50", "vgg19")
"""Networks to train, tune and demonstrate on; the others of that package are for evaluation."""

_LOGIT_STD = 2.0
"""Spread of the logits: a flat or saturated softmax would hide errors."""
_CALIBRATION_INPUTS = 4
_ROLES = {
    ("Conv", 1): "weight",
    ("Gemm", 1): "weight",
    ("Conv", 2): "bias",
    ("Gemm", 2): "bias",
    ("BatchNormalization", 1): "scale",
    ("BatchNormalization", 2): "bias",
    ("BatchNormalization", 3): "bias",
    ("BatchNormalization", 4): "scale",
}

Floats = npt.NDArray[np.float32]


def write_example(name: str, path: Path, seed: int = 0) -> None:
    """Write an example network as one self-contained ONNX file.

    Args:
        name: one of :data:`EXAMPLES`; each takes float32 [1, 3, 224, 224] and returns the softmax
            over 1000 classes.
        path: where the file goes; squeezenet takes 5 MB, resnet50 100 MB, vgg19 570 MB.
        seed: equal seeds give equal files.

    Raises:
        ValueError: there is no such example.
    """
    if name not in EXAMPLES:
        raise ValueError(f"no example is called {name!r}; there are {', '.join(EXAMPLES)}")
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = onnx.load(folder / f"light_{name}.onnx")
    # Initialisers need not be inputs as well from version 4 on.
    model.ir_version = max(model.ir_version, 4)
    _randomise(model.graph, np.random.default_rng(seed))
    _calibrate_logits(model, np.random.default_rng(seed + 1))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _randomise(graph: onnx.GraphProto, rng: np.random.Generator) -> None:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = [node for node in graph.node if node.op_type == "ConstantOfShape"]
    for node in made:
        shapes[node.output[0]] = tuple(int(d) for d in values[node.input[0]])
    replaced = {
        node.input[index]: _draw(role, shapes[node.input[index]], rng)
        for node in graph.node
        for index, name in enumerate(node.input)
        if (role := _ROLES.get((node.op_type, index))) and name in shapes
    }
    gone = {node.input[0] for node in made} | replaced.keys()
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    inputs = [value for value in graph.input if value.name not in shapes]
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    _replace(graph.initializer, kept + [numpy_helper.from_array(a, n) for n, a in replaced.items()])
    _replace(graph.input, inputs)
    _replace(graph.node, nodes)


def _draw(role: str, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    if role == "scale":
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if role == "bias":
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    # He et al. 2015, "Delving Deep into Rectifiers": keeps the variance through ReLU layers.
    std = float(np.sqrt(2.0 / fan_in))
    return (std * rng.standard_normal(shape)).astype(np.float32)


def _calibrate_logits(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Scale the classifier so that the logits neither flatten nor saturate the softmax."""
    graph = model.graph
    softmax = next(node for node in graph.node if node.op_type == "Softmax")
    classifier = [node for node in graph.node if node.op_type in {"Conv", "Gemm"}][-1]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    _replace(probe.graph.output, [onnx.ValueInfoProto(name=softmax.input[0])])
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    images = rng.standard_normal((_CALIBRATION_INPUTS, *shape)).astype(np.float32)
    name = session.get_inputs()[0].name
    logits = np.stack([np.asarray(session.run(None, {name: image})[0]) for image in images])
    factor = np.float32(_LOGIT_STD / logits.reshape(_CALIBRATION_INPUTS, -1).std(axis=1).mean())
    for tensor in graph.initializer:
        if tensor.name in classifier.input[1:]:
            scaled = numpy_helper.to_array(tensor) * factor
            tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))


def _replace(field: object, items: list[object]) -> None:
    del field[:]  # type: ignore[attr-defined]
    field.extend(items)  # type: ignore[attr-defined]


def main() -> None:
    """Write one example from the command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=EXAMPLES)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_example(options.name, options.path, options.seed)


if __name__ == "__main__":
    main()
