"""Device profiles: serialising them and naming the hardware."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunefleet.devices import DeviceProfile, MeasuredProfile

BOARD = DeviceProfile(
    arch="aarch64",
    cpu_model="Cortex-A72",
    isa_features=("asimd",),
    simd_bits=128,
    logical_cores=4,
    physical_cores=4,
    l1d_bytes=32 * 2**10,
    l2_bytes=2**20,
    cache_line_bytes=64,
    memory_bytes=3_980_000_000,
)

figures = st.none() | st.floats(min_value=1e-3, max_value=1e9)
counts = st.none() | st.integers(min_value=1, max_value=2**45)
measured_profiles = st.builds(
    MeasuredProfile, **{field.name: figures for field in fields(MeasuredProfile)}
)
profiles = st.builds(
    DeviceProfile,
    arch=st.text(min_size=1),
    cpu_model=st.none() | st.text(),
    isa_features=st.lists(st.text()).map(lambda flags: tuple(sorted(flags))),
    simd_bits=counts,
    logical_cores=st.integers(min_value=1, max_value=512),
    physical_cores=counts,
    l1d_bytes=counts,
    l2_bytes=counts,
    l3_bytes=counts,
    cache_line_bytes=counts,
    clock_max_mhz=figures,
    memory_bytes=counts,
    versions=st.dictionaries(st.text(), st.text()),
    measured=st.none() | measured_profiles,
)


@given(profiles)
def test_json_gives_the_same_profile_back(profile: DeviceProfile) -> None:
    assert DeviceProfile.from_json(profile.to_json()) == profile


@given(profiles)
def test_json_keeps_the_fingerprint(profile: DeviceProfile) -> None:
    assert DeviceProfile.from_json(profile.to_json()).fingerprint() == profile.fingerprint()


@pytest.mark.parametrize(
    "text",
    ["", "null", "5", "[]", "{}", '{"arch":"x86_64"}', '{"isa_features":[],"colour":"red"}'],
)
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own message differs by text)
        DeviceProfile.from_json(text)


@given(measured_profiles, figures)
def test_measuring_again_does_not_rename_the_hardware(
    measured: MeasuredProfile, clock_mhz: float | None
) -> None:
    again = replace(BOARD, measured=measured, clock_max_mhz=clock_mhz)
    assert again.fingerprint() == BOARD.fingerprint()


def test_updates_do_not_rename_the_hardware() -> None:
    updated = replace(
        BOARD,
        os_name="Debian 13",
        kernel="6.12.1",
        libc="glibc 2.41",
        llvm_cpu="cortex-a72",
        versions={"apache-tvm": "0.28"},
    )
    assert updated.fingerprint() == BOARD.fingerprint()


@given(
    nominal=st.sampled_from([n * 2**29 for n in (1, 2, 4, 8, 16, 24, 32, 48, 64, 128, 192, 1024)]),
    kept_by_kernels=st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)),
)
def test_what_the_kernel_keeps_of_the_memory_does_not_rename_the_hardware(
    nominal: int, kept_by_kernels: tuple[float, float]
) -> None:
    names = {
        replace(BOARD, memory_bytes=int(nominal * (1 - kept))).fingerprint()
        for kept in kept_by_kernels
    }
    assert len(names) == 1


@pytest.mark.parametrize(
    "difference",
    [
        {"arch": "x86_64"},
        {"cpu_model": "Cortex-A76"},
        {"isa_features": ("asimd", "asimddp")},
        {"simd_bits": 256},
        {"logical_cores": 2},
        {"physical_cores": 2},
        {"l1d_bytes": 65536},
        {"l2_bytes": None},
        {"l3_bytes": 2**21},
        {"cache_line_bytes": 128},
        {"memory_bytes": 8_000_000_000},
        {"memory_bytes": None},
    ],
    ids=str,
)
def test_other_hardware_has_another_name(difference: dict[str, Any]) -> None:
    assert replace(BOARD, **difference).fingerprint() != BOARD.fingerprint()
