"""Networks built from configurations: what scripts/networks.py writes can be collected from."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_files import AVX2, run_job

from scripts.networks import NETWORKS, main, write


@pytest.mark.parametrize(
    ("name", "operator"), [("bert-mini-128", "matmul"), ("regnet-224", "conv2d")]
)
def test_a_network_is_imported_as_a_users_is(tmp_path: Path, name: str, operator: str) -> None:
    model = write(name, tmp_path)
    spec = {
        "model_path": str(model),
        "targets": [AVX2],
        "out_dir": str(tmp_path / "imported"),
        "tasks_only": True,
    }
    code, result = run_job("coordinator.models.import_job", spec, tmp_path)
    assert code == 0, result
    assert sum(operator in task["name"] for task in result["tasks"]) >= 4
    assert (result["prepared"], result["inputs_npz"]) == ({}, None)


def test_networks_kept_for_evaluation_are_not_among_them() -> None:
    reserved = ("alexnet", "densenet", "inception", "shufflenet", "zfnet", "googlenet")
    assert not [name for name in NETWORKS if any(word in name for word in reserved)]


def test_an_unknown_network_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["networks", "write", str(folder), "nonet"])
    with pytest.raises(SystemExit):
        main()
    assert "no network nonet" in capsys.readouterr().err
    assert not folder.exists()
