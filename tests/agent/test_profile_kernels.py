"""The micro-benchmarks' kernels do the work that is counted for them."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.profile.figures import buffer_sizes, build_figures
from agent.profile.kernels import FLAG_STRIDE, Kernels, compile_kernels
from tunefleet.devices import DeviceProfile

THREADS = 2
GIB = 2**30
DEVICE = DeviceProfile(
    arch="x86_64",
    cpu_model=None,
    isa_features=(),
    simd_bits=None,
    logical_cores=THREADS,
    l1d_bytes=32 * 2**10,
    l2_bytes=2**20,
    l3_bytes=2**25,
    memory_bytes=8 * GIB,
)


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return compile_kernels('{"kind":"llvm"}', THREADS)


@pytest.mark.parametrize("threads", [1, THREADS])
def test_multiply_add_does_every_round(kernels: Kernels, threads: int) -> None:
    factor = np.linspace(-0.5, 1.0, kernels.lanes, dtype="float32")
    start = np.arange(threads * kernels.width(), dtype="float32")
    sums = tvm.runtime.tensor(start)
    kernels.multiply_add(threads, tvm.runtime.tensor(factor), sums, rounds=5)
    expected = start.reshape(-1, kernels.lanes)
    for _ in range(5):
        expected = expected + expected * factor
    np.testing.assert_allclose(sums.numpy(), expected.ravel(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threads", [1, THREADS])
def test_reading_adds_every_element_once_a_round(kernels: Kernels, threads: int) -> None:
    blocks = 7
    values = np.random.default_rng(0).random((threads, blocks, kernels.width()), dtype="float32")
    sums = tvm.runtime.tensor(np.zeros(threads * kernels.width(), "float32"))
    kernels.read(threads, tvm.runtime.tensor(values.ravel()), sums, rounds=3)
    np.testing.assert_allclose(sums.numpy(), 3 * values.sum(axis=1).ravel(), rtol=1e-4)


@pytest.mark.parametrize("threads", [1, THREADS])
def test_filling_reaches_every_element(kernels: Kernels, threads: int) -> None:
    values = tvm.runtime.tensor(np.zeros(6 * threads, "float32"))
    kernels.fill(threads, values, 2.5)
    assert values.numpy().tolist() == [2.5] * (6 * threads)


def test_every_thread_takes_part_in_every_launch(kernels: Kernels) -> None:
    flags = tvm.runtime.tensor(np.zeros(THREADS * FLAG_STRIDE, "float32"))
    kernels.launch(flags, rounds=9)
    assert flags.numpy()[::FLAG_STRIDE].tolist() == [9.0] * THREADS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="loads x86 code")
def test_vectors_are_as_wide_as_the_targets() -> None:
    narrow = compile_kernels('{"kind":"llvm","mcpu":"x86-64-v2"}', 1)
    wide = compile_kernels('{"kind":"llvm","mcpu":"x86-64-v3"}', 1)
    assert (narrow.lanes, wide.lanes) == (4, 8)


def test_figures_are_those_whose_level_is_known(kernels: Kernels) -> None:
    assert sorted(build_figures(kernels, {"l1": 4096, "memory": 2**20})) == [
        "bandwidth_l1_gbs",
        "bandwidth_memory_all_cores_gbs",
        "bandwidth_memory_gbs",
        "gflops_all_cores",
        "gflops_single_core",
        "parallel_launch_us",
    ]


def test_buffers_are_half_a_cache_and_well_beyond_the_last() -> None:
    assert buffer_sizes(DEVICE) == {"l1": 2**14, "l2": 2**19, "l3": 2**24, "memory": 2**27}


def test_a_level_of_unknown_size_has_no_buffer() -> None:
    assert "l3" not in buffer_sizes(replace(DEVICE, l3_bytes=None))


def test_a_cache_no_larger_than_the_one_below_has_no_buffer() -> None:
    assert "l3" not in buffer_sizes(replace(DEVICE, l3_bytes=2**20))


def test_memory_that_is_too_small_for_its_buffer_is_not_measured() -> None:
    assert "memory" not in buffer_sizes(replace(DEVICE, memory_bytes=GIB // 4))


@settings(max_examples=50)
@given(memory_bytes=st.integers(2**26, 2**42), l3_bytes=st.none() | st.integers(2**20, 2**30))
def test_buffers_leave_most_of_the_memory_alone(memory_bytes: int, l3_bytes: int | None) -> None:
    sizes = buffer_sizes(replace(DEVICE, memory_bytes=memory_bytes, l3_bytes=l3_bytes))
    assert sizes.get("memory", 0) <= memory_bytes // 8
