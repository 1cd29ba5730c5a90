"""The feature schema."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.features import HARDWARE_FEATURES, hardware_vector, schema_digest, stores_digest

TARGET = '{"kind":"llvm","mcpu":"haswell","num-cores":2}'
UNKNOWN = DeviceProfile(
    arch="riscv64", cpu_model=None, isa_features=(), simd_bits=None, logical_cores=4
)
KNOWN = DeviceProfile(
    arch="x86_64",
    cpu_model="a CPU",
    isa_features=("avx512f",),
    simd_bits=512,
    logical_cores=8,
    physical_cores=4,
    l1d_bytes=32768,
    l2_bytes=2**20,
    l3_bytes=2**25,
    cache_line_bytes=64,
    clock_max_mhz=3700.0,
    memory_bytes=2**34,
    measured=MeasuredProfile(110.0, 420.0, 210.0, 105.0, 70.0, 25.0, 40.0, 1.5),
)


def named(profile: DeviceProfile) -> dict[str, float]:
    return dict(zip(HARDWARE_FEATURES, hardware_vector(profile, TARGET), strict=True))


def test_the_schema_changes_only_on_purpose() -> None:
    # Every model is bound to this digest: whoever changes it makes all trained models useless.
    assert schema_digest() == "751af5776484e23b"
    # And every dataset to this one: whoever changes it has all features computed anew.
    assert stores_digest() == "7ab8e59544629810"


def test_a_known_device_is_described_completely() -> None:
    assert named(KNOWN) == {
        "target_simd_bits": 256.0,
        "target_cores": 2.0,
        "device_simd_bits": 512.0,
        "logical_cores": 8.0,
        "physical_cores": 4.0,
        "l1d_bytes": 32768.0,
        "l2_bytes": 2.0**20,
        "l3_bytes": 2.0**25,
        "cache_line_bytes": 64.0,
        "clock_max_mhz": 3700.0,
        "memory_bytes": 2.0**34,
        "gflops_single_core": 110.0,
        "gflops_all_cores": 420.0,
        "bandwidth_l1_gbs": 210.0,
        "bandwidth_l2_gbs": 105.0,
        "bandwidth_l3_gbs": 70.0,
        "bandwidth_memory_gbs": 25.0,
        "bandwidth_memory_all_cores_gbs": 40.0,
        "parallel_launch_us": 1.5,
        "is_x86_64": 1.0,
        "is_aarch64": 0.0,
    }


@pytest.mark.parametrize(
    "name", ["device_simd_bits", "l3_bytes", "clock_max_mhz", "gflops_single_core"]
)
def test_what_is_unknown_is_nan(name: str) -> None:
    assert math.isnan(named(UNKNOWN)[name])


@given(
    st.builds(
        MeasuredProfile,
        gflops_single_core=st.none() | st.floats(1e-3, 1e6),
        bandwidth_l3_gbs=st.none() | st.floats(1e-3, 1e6),
    )
)
def test_measured_values_are_passed_on_raw(measured: MeasuredProfile) -> None:
    profile = DeviceProfile("x86_64", None, (), None, 1, measured=measured)
    value = named(profile)["gflops_single_core"]
    assert value == measured.gflops_single_core or (
        math.isnan(value) and measured.gflops_single_core is None
    )
