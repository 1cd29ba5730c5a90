"""The static profile, read from the kernel's files."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_machines import raspberry_pi_4, rock_5, write_tree, x86_virtual_machine

from agent.profile.static import read_static_profile
from agent.profile.sysfs import parse_cpu_list
from tunefleet.devices import DeviceProfile


def of_process(profile: DeviceProfile) -> DeviceProfile:
    """Blank what is this process's and not the tree's."""
    return replace(profile, libc=None, versions={})


def test_a_raspberry_pi_4(tmp_path: Path) -> None:
    profile = read_static_profile(write_tree(tmp_path, raspberry_pi_4()), "aarch64")
    assert of_process(profile) == DeviceProfile(
        arch="aarch64",
        cpu_model="Cortex-A72",
        isa_features=("asimd",),
        simd_bits=128,
        logical_cores=4,
        physical_cores=4,
        l1d_bytes=32 * 2**10,
        l2_bytes=2**20,
        l3_bytes=None,
        cache_line_bytes=64,
        clock_max_mhz=1800.0,
        memory_bytes=3884396 * 1024,
        os_name="Debian GNU/Linux 12 (bookworm)",
        kernel="6.6.31+rpt-rpi-v8",
    )


def test_an_x86_virtual_machine(tmp_path: Path) -> None:
    profile = read_static_profile(write_tree(tmp_path, x86_virtual_machine()), "x86_64")
    assert of_process(profile) == DeviceProfile(
        arch="x86_64",
        cpu_model="Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz",
        isa_features=(
            "amx_tile",
            "avx",
            "avx2",
            "avx512_vnni",
            "avx512bw",
            "avx512dq",
            "avx512f",
            "avx512vl",
            "avx_vnni",
            "f16c",
            "fma",
            "sse2",
            "sse4_1",
            "sse4_2",
            "ssse3",
        ),
        simd_bits=512,
        logical_cores=4,
        physical_cores=2,
        l1d_bytes=48 * 2**10,
        l2_bytes=2**21,
        l3_bytes=105 * 2**20,
        cache_line_bytes=64,
        clock_max_mhz=None,
        memory_bytes=16370000 * 1024,
    )


def test_of_two_kinds_of_cores_the_more_capable_one_is_described(tmp_path: Path) -> None:
    profile = read_static_profile(write_tree(tmp_path, rock_5()), "aarch64")
    assert (profile.l1d_bytes, profile.l2_bytes, profile.clock_max_mhz) == (65536, 524288, 2400.0)


def test_of_two_kinds_of_cores_both_are_named(tmp_path: Path) -> None:
    profile = read_static_profile(write_tree(tmp_path, rock_5()), "aarch64")
    assert profile.cpu_model == "Cortex-A55 + Cortex-A76"


def test_cores_outside_the_affinity_mask_do_not_count(tmp_path: Path) -> None:
    files = {**x86_virtual_machine(), "proc/self/status": "Cpus_allowed_list:\t0-1"}
    profile = read_static_profile(write_tree(tmp_path, files), "x86_64")
    assert (profile.logical_cores, profile.physical_cores) == (2, 1)


def test_a_board_that_tells_no_caches_has_unknown_ones(tmp_path: Path) -> None:
    files = {name: text for name, text in raspberry_pi_4().items() if "/cache/" not in name}
    profile = read_static_profile(write_tree(tmp_path, files), "aarch64")
    assert (profile.l1d_bytes, profile.l2_bytes, profile.cache_line_bytes) == (None, None, None)


def test_cores_are_counted_without_sysfs(tmp_path: Path) -> None:
    cpuinfo = {"proc/cpuinfo": x86_virtual_machine()["proc/cpuinfo"]}
    profile = read_static_profile(write_tree(tmp_path, cpuinfo), "x86_64")
    assert (profile.logical_cores, profile.physical_cores) == (4, 2)


def test_a_machine_that_tells_nothing_is_unknown(tmp_path: Path) -> None:
    profile = read_static_profile(tmp_path, "riscv64")
    assert of_process(profile) == DeviceProfile(
        arch="riscv64",
        cpu_model=None,
        isa_features=(),
        simd_bits=None,
        logical_cores=os.cpu_count() or 1,
    )


def test_an_arm_core_without_a_known_name_is_given_by_its_numbers(tmp_path: Path) -> None:
    cpuinfo = raspberry_pi_4()["proc/cpuinfo"].replace("0xd08", "0xfff")
    profile = read_static_profile(write_tree(tmp_path, {"proc/cpuinfo": cpuinfo}), "aarch64")
    assert profile.cpu_model == "ARM part 0xfff"


@pytest.mark.parametrize(
    ("told", "bits"), [({}, None), ({"proc/sys/abi/sve_default_vector_length": "32"}, 256)]
)
def test_a_scalable_width_is_known_only_if_the_kernel_tells(
    told: dict[str, str], bits: int | None, tmp_path: Path
) -> None:
    cpuinfo = raspberry_pi_4()["proc/cpuinfo"].replace("asimd", "asimd sve")
    tree = write_tree(tmp_path, {"proc/cpuinfo": cpuinfo, **told})
    assert read_static_profile(tree, "aarch64").simd_bits == bits


def test_this_machine_keeps_its_fingerprint() -> None:
    assert read_static_profile().fingerprint() == read_static_profile().fingerprint()


def test_this_process_counts_the_cores_it_may_use() -> None:
    assert read_static_profile().logical_cores == len(os.sched_getaffinity(0))


def test_reading_it_imports_neither_tvm_nor_numpy() -> None:
    script = (
        "import sys; from agent.profile.static import read_static_profile; read_static_profile();"
        "print({'tvm', 'tvm_ffi', 'numpy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


@given(st.frozensets(st.integers(0, 300), min_size=1))
def test_cpu_lists_are_read_as_the_kernel_means_them(cpus: frozenset[int]) -> None:
    assert parse_cpu_list(",".join(map(str, sorted(cpus)))) == cpus


def test_cpu_lists_have_ranges() -> None:
    assert parse_cpu_list("0-2,5,8-9") == {0, 1, 2, 5, 8, 9}
