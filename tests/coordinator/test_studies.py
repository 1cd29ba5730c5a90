"""Studies, whole but small: each runs, goes on where it was, and says what it found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from coordinator.study.corpus import Corpus
from coordinator.study.job import run_study
from coordinator.study.splits import make_split
from coordinator.study.studies.few_labels import with_pool
from coordinator.study.studies.registry import STUDIES
from tunefleet.cli.study import STUDIES as TOLD
from tunefleet.errors import Reason, TuneFleetError

SMALL = {
    "splits": {"splits": ["by_task"], "models": ["attention", "xgb_hw", "random"]},
    "pruning": {"splits": ["by_task"], "models": ["random", "combined"]},
    "transfer": {"splits": ["unseen_both"]},
    "ablation": {"splits": ["by_task"], "models": ["whole", "no hardware", "shuffled hardware"]},
    "features": {"splits": ["by_task"]},
    "curves": {"splits": ["by_task"], "models": ["xgb_hw"]},
    "calibration": {"splits": ["by_task"]},
}


def test_the_command_tells_of_every_study() -> None:
    assert TOLD.keys() == STUDIES.keys() == SMALL.keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_study_writes_what_it_found(name: str, some_shipped: Path, tmp_path: Path) -> None:
    told: list[float] = []
    spec = {
        "study": name,
        "place": str(some_shipped),
        "folder": str(tmp_path / "out"),
        "seeds": [0],
        "threads": 1,
        "steps": 4,
        **SMALL[name],
    }
    result = run_study(spec, lambda share, _message: told.append(share))
    assert told == sorted(told)
    assert result["tables"]
    for table in result["tables"]:
        assert table["rows"], table["name"]
    assert all(Path(path).stat().st_size > 0 for path in result["files"])
    data = json.loads((tmp_path / "out" / f"{name}.json").read_text())
    assert data["tables"] == result["tables"]


def test_features_are_compared_on_the_same_trials(some_shipped: Path, tmp_path: Path) -> None:
    spec = {"study": "features", "place": str(some_shipped), "folder": str(tmp_path / "out")}
    usual = {"seeds": [0], "threads": 1, "steps": 3, "splits": ["by_task"]}
    [table] = run_study(spec | usual, lambda _share, _message: None)["tables"]
    assert [row["features"] for row in table["rows"]] == ["stores", "schedule", "both", "steps"]
    assert len({str(row["pca"]) for row in table["rows"]}) == 4


def test_a_study_goes_on_where_it_was(
    some_shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {
        "study": "splits",
        "place": str(some_shipped),
        "folder": str(tmp_path / "out"),
        "seeds": [0],
        "threads": 1,
        "steps": 4,
        **SMALL["splits"],
    }
    first = run_study(spec, lambda _share, _message: None)

    def refuse(*_arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("coordinator.study.rankers.attention.fit", refuse)
    assert run_study(spec, lambda _share, _message: None)["tables"] == first["tables"]
    damaged = next((tmp_path / "out" / "cells").glob("*.npy"))
    damaged.write_bytes(b"half a file")
    monkeypatch.undo()
    assert run_study(spec, lambda _share, _message: None)["tables"] == first["tables"]


def test_an_unknown_study_is_refused(some_shipped: Path, tmp_path: Path) -> None:
    spec = {"study": "astrology", "place": str(some_shipped), "folder": str(tmp_path)}
    with pytest.raises(TuneFleetError) as raised:
        run_study(spec, lambda _share, _message: None)
    assert raised.value.reason is Reason.INVALID_ARGUMENT
    assert "splits" in raised.value.message


@pytest.mark.parametrize("name", ["by_target", "unseen_both"])
def test_labels_are_of_the_target_and_of_no_workload_that_is_tested(
    name: str, shipped: Corpus
) -> None:
    labelled = with_pool(shipped, make_split(name, shipped, 0))
    [target] = np.unique(shipped.target[labelled.test])
    for count in (32, 128):
        drawn = labelled.draw(shipped, count)
        assert len(drawn) == len(np.unique(drawn)) == count
        assert set(shipped.target[drawn]) == {target}
        tested = set(shipped.workload[labelled.test])
        assert not tested & set(shipped.workload[drawn])
