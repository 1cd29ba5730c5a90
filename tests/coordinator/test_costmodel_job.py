from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from costmodel_rows import synthetic_rows

from coordinator.costmodel import dataset

Outcome = tuple[int, dict[str, Any], list[dict[str, Any]]]


def run_job(folder: Path, spec: dict[str, Any]) -> Outcome:
    """Run the job as the coordinator does; returns exit code, result and progress."""
    (folder / "spec.json").write_text(json.dumps(spec))
    job = subprocess.run(
        [
            *(sys.executable, "-m", "coordinator.costmodel.train_job"),
            *("--spec", str(folder / "spec.json"), "--out", str(folder / "out.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads((folder / "out.json").read_text())
    return job.returncode, result, [json.loads(line) for line in job.stdout.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    dataset.save(folder / "rows", synthetic_rows(seed=5, per_task=40))
    spec = {
        "rows": str(folder / "rows"),
        "parent_checkpoint": "",
        "out_dir": str(folder / "v1"),
        "version": "v1",
        "seed": 3,
        "threads": 1,
        "noise": 0.02,
    }
    return run_job(folder, spec)


def test_the_first_version_is_trained_exported_and_promoted(first: Outcome) -> None:
    code, result, _ = first
    assert code == 0
    assert result["promote"]
    assert result["onnx_max_diff"] <= 1e-4
    assert result["metrics"]["rows"] == 160
    assert result["metrics"]["tasks"] == 4
    assert 0.6 < result["metrics"]["pca_heldout"] <= 1.0
    assert result["metrics"]["pairs"] > 50
    assert Path(result["onnx"]).is_file()
    assert Path(result["checkpoint"]).is_file()


def test_progress_goes_from_nothing_to_done(first: Outcome) -> None:
    shares = [line["progress"] for line in first[2]]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_the_next_version_builds_on_the_first_and_is_compared_with_it(
    folder: Path, first: Outcome
) -> None:
    dataset.save(folder / "more", synthetic_rows(seed=5, per_task=60))
    code, result, _ = run_job(
        folder,
        {
            "rows": str(folder / "more"),
            "parent_checkpoint": first[1]["checkpoint"],
            "out_dir": str(folder / "v2"),
            "version": "v2",
        },
    )
    metrics = result["metrics"]
    assert code == 0
    assert result["promote"] == (metrics["pca_heldout"] >= metrics["pca_parent_heldout"])
    assert metrics["pairs"] > first[1]["metrics"]["pairs"]


def test_a_damaged_rows_file_is_reported(folder: Path, first: Outcome, tmp_path: Path) -> None:
    damaged = tmp_path / "rows"
    damaged.write_bytes((folder / "rows").read_bytes()[:-100])
    spec = {
        "rows": str(damaged),
        "parent_checkpoint": "",
        "out_dir": str(tmp_path / "out"),
        "version": "v1",
    }
    code, result, _ = run_job(tmp_path, spec)
    assert code == 1
    assert "the file ends early" in result["error"]


def test_a_spec_without_rows_is_reported(tmp_path: Path) -> None:
    spec = {"parent_checkpoint": "", "out_dir": str(tmp_path), "version": "v1"}
    code, result, _ = run_job(tmp_path, spec)
    assert code == 1
    assert "lacks the entry 'rows'" in result["error"]
