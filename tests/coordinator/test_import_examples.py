"""Example networks: their outputs must be able to reveal an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from coordinator.models.examples import write_example


@pytest.fixture(scope="module")
def probabilities(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """Outputs of squeezenet on three random images, float32 [3, 1000]."""
    path = tmp_path_factory.mktemp("examples") / "squeezenet.onnx"
    write_example("squeezenet", path, seed=0)
    session = ort.InferenceSession(path)
    rng = np.random.default_rng(9)
    images = rng.standard_normal((3, 1, 3, 224, 224)).astype(np.float32)
    return np.stack([session.run(None, {"data_0": image})[0].ravel() for image in images])


def test_the_softmax_is_neither_flat_nor_saturated(probabilities: np.ndarray) -> None:
    top = probabilities.max(axis=1)
    assert (top > 0.01).all()
    assert (top < 0.5).all()
    assert (np.median(probabilities, axis=1) < 0.1 * top).all()


def test_outputs_depend_on_the_input_by_more_than_the_tolerance(probabilities: np.ndarray) -> None:
    assert np.abs(probabilities[0] - probabilities[1]).max() > 2e-3


def test_equal_seeds_write_equal_files_and_others_do_not(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx", "c.onnx")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_example("squeezenet", path, seed)
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other


def test_networks_kept_for_evaluation_are_no_examples(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="squeezenet, resnet50, vgg19"):
        write_example("densenet121", tmp_path / "d.onnx")
