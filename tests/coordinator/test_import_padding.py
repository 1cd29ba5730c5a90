"""Channels are padded to whole vectors without changing what a network computes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tvm
from tvm import relax

from coordinator.models.padding import LANES, pad_channels
from coordinator.models.prepare import prepare

TARGET = json.dumps({"kind": "llvm", "mcpu": "x86-64-v2", "num-cores": 1})
ALMOST = 8 * LANES - 2


def network(
    channels: int,
    *,
    bias: bool = True,
    activated: bool = True,
    groups: int = 1,
    averaged: tuple[int, ...] = (2, 3),
    keepdims: bool = True,
) -> tvm.IRModule:
    """Make a convolution of seeded weights and what follows it."""
    rng = np.random.default_rng(channels)
    builder = relax.BlockBuilder()
    data = relax.Var("data", relax.TensorType((1, 2 * groups, 5, 5), "float32"))
    with builder.function("main", [data]):
        with builder.dataflow():
            weight = rng.normal(size=(channels, 2, 3, 3)).astype(np.float32)
            made = relax.op.nn.conv2d(data, relax.const(weight), groups=groups)
            if bias:
                shift = rng.normal(size=(1, channels, 1, 1)).astype(np.float32)
                made = relax.op.add(builder.emit(made), relax.const(shift))
            if activated:
                made = relax.op.nn.relu(builder.emit(made))
            if averaged:
                made = relax.op.mean(builder.emit(made), list(averaged), keepdims)
            out = builder.emit_output(builder.emit(made))
        builder.emit_func_output(out)
    return builder.get()


def computed(module: tvm.IRModule, inputs: np.ndarray) -> np.ndarray:
    built = tvm.compile(module, target=tvm.target.Target(TARGET))
    return relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.tensor(inputs)).numpy()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activated", [True, False])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_padded_convolution_computes_the_same(
    bias: bool, activated: bool, keepdims: bool
) -> None:
    module = network(ALMOST, bias=bias, activated=activated, keepdims=keepdims)
    inputs = np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)
    wanted = computed(module, inputs)
    padded = pad_channels(module.clone())
    assert f"R.Tensor((1, {8 * LANES}, 3, 3)" in str(padded)
    np.testing.assert_allclose(computed(padded, inputs), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        computed(prepare(module, TARGET), inputs), wanted, rtol=1e-5, atol=1e-5
    )


def test_bias_and_activation_stay_fused_with_the_convolution() -> None:
    prepared = prepare(network(ALMOST), TARGET)
    names = [variable.name_hint for variable in prepared.functions]
    assert "fused_conv2d_add_relu" in names, names


@pytest.mark.parametrize(
    "module",
    [
        network(8 * LANES),
        network(24),
        network(ALMOST, groups=2),
        network(ALMOST, averaged=()),
        network(ALMOST, averaged=(1,)),
    ],
    ids=["whole vectors", "too few channels", "several groups", "no average", "of channels"],
)
def test_others_stay_as_they_are(module: tvm.IRModule) -> None:
    tvm.ir.assert_structural_equal(pad_channels(module.clone()), module)
