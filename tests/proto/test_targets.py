"""Targets as canonical JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunefleet.devices import DeviceProfile
from tunefleet.targets import canonical_target, derive_target, target_cores, target_simd_bits

X86 = DeviceProfile(
    arch="x86_64",
    cpu_model="a CPU",
    isa_features=("avx", "avx2", "fma", "sse4_2"),
    simd_bits=256,
    logical_cores=6,
)
AVX512 = ("avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "fma", "sse4_2")

words = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1)
values = words | st.integers(0, 4096) | st.lists(words, max_size=3)
# Some names have values of their own kind, which other tests are about.
names = words.map("x-{}".format)
targets = st.dictionaries(names, values).map(lambda options: {**options, "kind": "llvm"})


@pytest.mark.parametrize(
    "spelling",
    [
        "llvm -mcpu=znver4 -num-cores=2",
        "  llvm --num-cores=2   -mcpu=znver4 ",
        '{"num-cores": 2, "mcpu": "znver4", "kind": "llvm"}',
        '{"kind":"llvm","mcpu":"znver4","num-cores":2}',
    ],
)
def test_all_spellings_of_a_target_become_one(spelling: str) -> None:
    assert canonical_target(spelling) == '{"kind":"llvm","mcpu":"znver4","num-cores":2}'


def test_attributes_are_a_list() -> None:
    target = json.loads(canonical_target("llvm -mattr=+avx512f,+avx512bw"))
    assert target["mattr"] == ["+avx512f", "+avx512bw"]


@given(targets)
def test_a_canonical_target_stays_as_it_is(options: dict[str, object]) -> None:
    canonical = canonical_target(json.dumps(options))
    assert canonical_target(canonical) == canonical


@given(targets)
def test_a_canonical_target_says_the_same(options: dict[str, object]) -> None:
    assert json.loads(canonical_target(json.dumps(options))) == options


@pytest.mark.parametrize(
    "spec",
    [
        *("", "   ", "{", "{}", '{"kind": 5}', '{"mcpu":"znver4"}', "llvm mcpu=znver4"),
        *("llvm -mcpu", "llvm -mcpu='", "llvm -mcpu=a/b", "llvm " * 1_000, "[" * 3_000),
        *('{"kind":"llvm","mcpu":"../x"}', '{"kind":"llvm","mcpu":0}', '{"kind":"a b"}'),
        *('{"kind":"llvm","num-cores":NaN}', '{"kind":"llvm","num-cores":"2"}'),
        *("llvm -num-cores=0", "llvm -num-cores=" + "9" * 5_000, '{"kind":"llvm","a":1e999}'),
        *(
            '{"kind":"llvm","mattr":7}',
            '{"kind":"llvm","mattr":[7]}',
            '{"kind":"llvm","a":"\\u0000"}',
        ),
        '{"kind":"llvm","a":' + "[" * 20 + "]" * 20 + "}",
        '{"kind":"llvm","a":' + "9" * 30 + "}",
    ],
)
def test_what_is_no_target_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="target"):
        canonical_target(spec)


@pytest.mark.parametrize(
    ("isa_features", "mcpu"),
    [
        (AVX512, "x86-64-v4"),
        (("avx2", "fma", "sse4_2"), "x86-64-v3"),
        (("sse4_2",), "x86-64-v2"),
        ((), "x86-64"),
    ],
)
def test_without_llvms_name_the_isa_level_is_targeted(
    isa_features: tuple[str, ...], mcpu: str
) -> None:
    target = json.loads(derive_target(replace(X86, isa_features=isa_features)))
    assert target["mcpu"] == mcpu


def test_llvms_name_for_the_cpu_is_preferred() -> None:
    assert json.loads(derive_target(replace(X86, llvm_cpu="znver3")))["mcpu"] == "znver3"


def test_a_derived_target_uses_the_cores_of_the_affinity_mask() -> None:
    assert target_cores(derive_target(X86)) == 6


def test_an_arm_board_gets_neon() -> None:
    board = replace(X86, arch="aarch64", isa_features=("asimd",), simd_bits=128)
    target = json.loads(derive_target(board))
    assert (target["mcpu"], target["mattr"]) == ("generic", ["+neon"])


def test_an_unknown_architecture_has_no_target() -> None:
    with pytest.raises(ValueError, match="s390x"):
        derive_target(replace(X86, arch="s390x"))


def test_a_target_need_not_name_cores() -> None:
    assert target_cores('{"kind":"llvm"}') is None


@pytest.mark.parametrize(
    ("target", "bits"),
    [
        ('{"kind":"llvm"}', 256),
        ('{"kind":"llvm","mcpu":"alderlake"}', 256),
        ('{"kind":"llvm","mcpu":"nehalem"}', 128),
        ('{"kind":"llvm","mcpu":"znver4"}', 512),
        ('{"kind":"llvm","mattr":["+avx512f"],"mcpu":"haswell"}', 512),
        ('{"kind":"llvm","mcpu":"pdp11"}', None),
    ],
)
def test_simd_width_is_that_of_the_target(target: str, bits: int | None) -> None:
    assert target_simd_bits(target, X86) == bits
