"""Convolutions become channels-last without changing what a network computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

from coordinator.models.onnx_network import load_onnx
from coordinator.models.prepare import prepare
from tests.e2e.fleet import write_small_network

TARGET = json.dumps({"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 1})


@pytest.mark.parametrize("convert_layout", [True, False])
def test_a_prepared_network_computes_what_onnxruntime_does(
    tmp_path: Path, convert_layout: bool
) -> None:
    path = write_small_network(tmp_path / "small.onnx")
    network = load_onnx(path, path.name, {}, tmp_path)
    prepared = prepare(network.module, TARGET, convert_layout=convert_layout)
    assert ("transpose" in str(prepared)) is convert_layout
    assert "permute_dims" not in str(prepared)

    machine = relax.VirtualMachine(
        tvm.compile(prepared, target=tvm.target.Target(TARGET)), tvm.cpu()
    )
    inputs = np.random.default_rng(0).normal(size=(1, 3, 24, 24)).astype(np.float32)
    got = machine["main"](tvm.runtime.tensor(inputs))
    got = got.numpy() if hasattr(got, "numpy") else got[0].numpy()
    np.testing.assert_allclose(got, network.run([inputs])[0], atol=1e-5)
