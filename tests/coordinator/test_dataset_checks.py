"""Rows of somebody's file that cannot be: each is refused with a reason, none ends the import."""

from __future__ import annotations

import json
from typing import Any

import pytest
from store_samples import KEY, PROFILE, trial

from coordinator.dataset.checks import read_trial
from coordinator.dataset.writing import trial_row
from coordinator.state.trial_records import TrialRecord
from tunefleet.devices import DeviceProfile


def row(**changes: Any) -> dict[str, Any]:
    """Make a row as an export writes it, with some columns replaced."""
    record = TrialRecord(KEY, "id-pi4", "c-1", "conv2d", {"resnet50": 2}, trial(1))
    return trial_row(record, PROFILE.to_json()) | changes


def profile(**changes: Any) -> str:
    return json.dumps(json.loads(PROFILE.to_json()) | changes)


def test_a_row_of_ours_is_taken() -> None:
    read, told = read_trial(row(), b"")
    assert read.sources == {"resnet50": 2}
    assert DeviceProfile.from_json(told) == PROFILE


@pytest.mark.parametrize(
    "changes",
    [
        {"sources": json.dumps({"net": 10**30})},
        {"sources": json.dumps({"net": -1})},
        {"sources": json.dumps({"net": True})},
        {"sources": json.dumps({"\ud800": 1})},
        {"sources": json.dumps({"x" * 300: 1})},
        {"sources": json.dumps({f"net-{n}": 1 for n in range(20_000)})},
        {"sources": "[" * 5_000},
        {"samples_s": [1e300]},
        {"samples_s": [float("nan")]},
        {"conditions": json.dumps({"clock_mhz": 10**400})},
        {"conditions": json.dumps({"attempts": 2**70})},
        {"conditions": '{"a":' * 5_000},
        {"trace": "[" * 100_000},
        {"trace": None},
        {"target": '{"kind":"llvm","mcpu":"../x"}'},
        {"device_profile": profile(logical_cores="two")},
        {"device_profile": profile(logical_cores=[2])},
        {"device_profile": profile(memory_bytes="much")},
        {"device_profile": profile(memory_bytes=2**80)},
        {"device_profile": profile(cpu_model="\ud800")},
        {"device_profile": profile(isa_features="avx2")},
        {"device_profile": profile(isa_features=[1])},
        {"device_profile": profile(versions=7)},
        {"device_profile": profile(measured={"gflops_single_core": "fast"})},
        {"device_profile": profile(measured={"gflops_single_core": float("inf")})},
        {"device_profile": profile(measured=[])},
        {"device_profile": "[" * 5_000},
        {"device_profile": "7"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_row_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_trial(row(**changes), b"")
