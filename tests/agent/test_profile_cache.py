"""Measured profiles kept on disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from agent.profile import cache
from agent.profile.cache import FILE_NAME, Measurement, cache_key
from tunefleet.devices import DeviceProfile, MeasuredProfile

DEVICE = DeviceProfile(
    arch="x86_64",
    cpu_model="a CPU",
    isa_features=("avx2",),
    simd_bits=256,
    logical_cores=2,
    versions={"apache-tvm": "0.27"},
)
MEASUREMENT = Measurement(
    MeasuredProfile(gflops_single_core=100.0, bandwidth_l1_gbs=200.0), llvm_cpu="znver4"
)


def test_what_was_stored_is_loaded(tmp_path: Path) -> None:
    cache.store(tmp_path / "home", "key", MEASUREMENT)
    assert cache.load(tmp_path / "home", "key") == MEASUREMENT


def test_entries_do_not_displace_each_other(tmp_path: Path) -> None:
    cache.store(tmp_path, "one", MEASUREMENT)
    cache.store(tmp_path, "other", replace(MEASUREMENT, llvm_cpu="haswell"))
    assert cache.load(tmp_path, "one") == MEASUREMENT


def test_an_unknown_key_has_nothing(tmp_path: Path) -> None:
    cache.store(tmp_path, "one", MEASUREMENT)
    assert cache.load(tmp_path, "other") is None


CORRUPT = ["", "{", "[]", '{"key": 5}', '{"key": {"measured": {}}}', "\x00\x01", "[" * 100_000]


@pytest.mark.parametrize("text", CORRUPT, ids=lambda text: text[:10])
def test_a_corrupt_file_has_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert cache.load(tmp_path, "key") is None


@pytest.mark.parametrize("text", CORRUPT, ids=lambda text: text[:10])
def test_a_corrupt_file_is_written_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    cache.store(tmp_path, "key", MEASUREMENT)
    assert cache.load(tmp_path, "key") == MEASUREMENT


def test_bytes_that_are_no_text_have_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe\x80")
    assert cache.load(tmp_path, "key") is None


def test_storing_leaves_one_file(tmp_path: Path) -> None:
    cache.store(tmp_path, "key", MEASUREMENT)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("figure", [0, -1.0, float("nan"), float("inf"), "fast", True])
def test_an_implausible_figure_is_refused(figure: object) -> None:
    raw: dict[str, Any] = json.loads(json.dumps(asdict(MEASUREMENT)))
    raw["measured"]["gflops_single_core"] = figure
    with pytest.raises(ValueError, match="figures"):
        Measurement.from_dict(raw)


@pytest.mark.parametrize(
    ("device", "target"),
    [
        (replace(DEVICE, logical_cores=4), None),
        (replace(DEVICE, versions={"apache-tvm": "0.28"}), None),
        (DEVICE, '{"kind":"llvm","mcpu":"haswell"}'),
    ],
    ids=["other cores", "other TVM", "other target"],
)
def test_what_figures_depend_on_is_in_the_key(device: DeviceProfile, target: str | None) -> None:
    assert cache_key(device, target) != cache_key(DEVICE, None)


def test_an_updated_kernel_keeps_the_key() -> None:
    assert cache_key(replace(DEVICE, kernel="6.12"), None) == cache_key(DEVICE, None)
