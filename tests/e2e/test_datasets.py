"""A dataset's way from one fleet to another: real agents measure, featurize and replay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from agent.profile.cache import Measurement
from tests.e2e.fleet import Fleet, eventually
from tests.e2e.test_campaign import online

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SSE = '{"kind":"llvm","mcpu":"x86-64-v2","mtriple":"x86_64-unknown-linux-gnu","num-cores":1}'
AVX2 = '{"kind":"llvm","mcpu":"x86-64-v3","mtriple":"x86_64-unknown-linux-gnu","num-cores":1}'


@pytest.fixture
def elsewhere(tmp_path: Path, measured: Measurement) -> Iterator[Fleet]:
    """A second coordinator, with an agent for another target."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    made = Fleet(folder, measured)
    made.start_coordinator()
    made.start_agent("wide", "--target", AVX2)
    yield made
    made.close()


def features_of(folder: Path) -> dict[str, list[float] | None]:
    """Read the features of a dataset's trials, by trial."""
    table = pq.read_table(folder / "trials.parquet")
    return dict(zip(table["trial_id"].to_pylist(), table["features"].to_pylist(), strict=True))


@pytest.mark.slow
def test_trials_move_to_another_fleet_get_features_there_and_are_measured_again(
    fleet: Fleet, elsewhere: Fleet, tmp_path: Path
) -> None:
    fleet.start_agent("narrow", "--target", SSE)
    eventually(
        "the agents' profiles", lambda: online(fleet) + online(elsewhere) == ["narrow", "wide"]
    )
    fleet.json("collect", "--families", "dense", "--workloads", "1", "--per-task", "6")

    exported = fleet.json("dataset", "export", str(tmp_path / "whole"))
    assert exported["stats"]["trials"] == len(fleet.trials())
    fleet.json("dataset", "export", str(tmp_path / "bare"), "--no-features")
    assert set(features_of(tmp_path / "bare").values()) == {None}

    imported = elsewhere.json("dataset", "import", str(tmp_path / "bare"), "--featurize")
    assert imported["result"]["new"] == len(fleet.trials())
    assert imported["result"]["rejected"] == 0
    elsewhere.json("dataset", "export", str(tmp_path / "back"))
    # Whichever agent computes them, a program has one set of features.
    assert features_of(tmp_path / "back") == features_of(tmp_path / "whole")
    assert online(elsewhere) == ["wide"]
    assert [d["name"] for d in elsewhere.json("devices", "list", "--imported")["devices"]] == [
        "narrow"
    ]

    replayed = elsewhere.json("replay", str(tmp_path / "bare"), "--per-task", "4")
    [group] = replayed["result"]["groups"]
    assert json.loads(group["target"])["mcpu"] == "x86-64-v3"
    assert not group["same_hardware"]
    assert group["planned"] == group["compared"] == 4 * len(group["tasks"])
    assert group["median_ratio"] > 0
    assert -1 <= group["kendall_tau"] <= 1
    by_target = {t.target for t in elsewhere.trials()}
    assert by_target == {SSE, AVX2}, "records of two targets were mixed"

    again = elsewhere.json(
        "replay", replayed["campaign"]["campaign_id"], "--best", "2", "--devices", "name=wide"
    )
    [group] = again["result"]["groups"]
    assert group["same_hardware"]
    assert group["compared"] == 2 * len(group["tasks"])
