"""Sampling families: real import, real extraction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_files import AVX2, SSE

from coordinator.models.families import SAMPLERS
from coordinator.models.families.graph import Graph
from coordinator.models.families_job import sample_families
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.families import FAMILIES


def sample(folder: Path, *families: str, workloads: int = 6, **changes: Any) -> dict[str, Any]:
    spec = {
        "families": list(families),
        "workloads": workloads,
        "seed": 1,
        "targets": [AVX2],
        "out_dir": str(folder),
    }
    return sample_families(spec | changes, lambda share, text: None)


def test_every_family_that_users_may_name_can_be_sampled() -> None:
    assert set(SAMPLERS) == set(FAMILIES)


def test_a_family_has_as_many_different_workloads_as_asked_for(tmp_path: Path) -> None:
    tasks = sample(tmp_path, "dense")["tasks"]
    assert len({t["workload"] for t in tasks}) == len(tasks) == 6
    assert all(t["sources"] == {"dense": 1} for t in tasks)
    assert all(t["flops"] > 0 for t in tasks if "matmul" in t["name"])


def test_every_target_has_the_same_workloads(tmp_path: Path) -> None:
    tasks = sample(tmp_path, "conv1d", targets=[AVX2, SSE])["tasks"]
    by_target = {t: {x["workload"] for x in tasks if x["target"] == t} for t in (AVX2, SSE)}
    assert by_target[AVX2] == by_target[SSE]
    assert len(by_target[SSE]) == 6


def test_a_seed_decides_what_is_sampled(tmp_path: Path) -> None:
    def names(seed: int) -> list[str]:
        return [t["workload"] for t in sample(tmp_path, "reduction", seed=seed)["tasks"]]

    assert names(1) == names(1)
    assert not set(names(1)) & set(names(2))


def test_families_take_turns(tmp_path: Path) -> None:
    tasks = sample(tmp_path, "batch_matmul", "elementwise", workloads=3)["tasks"]
    sources = [next(iter(t["sources"])) for t in tasks]
    assert sources[:4] == ["batch_matmul", "elementwise"] * 2


def test_convolutions_look_as_they_do_inside_networks(tmp_path: Path) -> None:
    """Channels-last, batch normalisation folded, no transposition fused to them."""
    tasks = sample(tmp_path, "conv2d_depthwise", workloads=10)["tasks"]
    convolutions = [t for t in tasks if "conv2d" in t["name"]]
    assert len(convolutions) >= 7
    assert not [t["name"] for t in convolutions if "transpose" in t["name"]]
    assert not [t["name"] for t in convolutions if "sqrt" in t["name"]]


def test_workloads_can_be_read_back(tmp_path: Path) -> None:
    import tvm
    from tvm_ffi import structural_hash

    for task in sample(tmp_path, "pooling", workloads=4)["tasks"]:
        module = tvm.ir.load_json(Path(task["path"]).read_text())
        assert f"{structural_hash(module) & 0xFFFFFFFFFFFFFFFF:016x}" == task["workload"]


def test_a_sample_that_cannot_be_imported_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = SAMPLERS["elementwise"]
    calls = []

    def sometimes_broken(graph: Graph) -> None:
        calls.append(graph)
        if len(calls) == 5:
            # Two shapes that do not broadcast: the importer raises.
            graph.output(graph.op("Add", graph.input([2, 3]), graph.input([4, 5])))
        else:
            sampled(graph)

    monkeypatch.setitem(SAMPLERS, "elementwise", sometimes_broken)
    assert len(sample(tmp_path, "elementwise", workloads=5)["tasks"]) == 5


def test_an_unknown_family_is_named(tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError, match="there is no family conv9d") as raised:
        sample(tmp_path, "dense", "conv9d")
    assert raised.value.reason is Reason.INVALID_ARGUMENT


def test_the_result_is_json(tmp_path: Path) -> None:
    result = sample(tmp_path, "normalisation", workloads=2)
    assert json.loads(json.dumps(result)) == result
    assert (result["prepared"], result["onnx"]) == ({}, None)
