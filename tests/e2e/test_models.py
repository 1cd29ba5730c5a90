"""A cost model's way: trained from a dataset, judged, put in use by a fleet, and taken back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, eventually
from tests.e2e.test_campaign import online

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SSE = '{"kind":"llvm","mcpu":"x86-64-v2","mtriple":"x86_64-unknown-linux-gnu","num-cores":1}'


def alone(*arguments: str, folder: Path) -> dict[str, object]:
    """Run a command that needs no coordinator; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "tunefleet.cli", *arguments, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
        env={
            **os.environ,
            "TUNEFLEET_LOCK_DIR": str(folder / "locks"),
            "TUNEFLEET_COORDINATOR": "127.0.0.1:1",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.fixture(scope="module")
def place(some_shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of some of the shipped trials."""
    folder = tmp_path_factory.mktemp("models")
    arguments = ("dataset", "prune", str(some_shipped), str(folder / "few"), "--keep", "0.5")
    alone(*arguments, "--strategy", "random", folder=folder)
    return folder


@pytest.fixture(scope="module")
def models(place: Path) -> tuple[Path, Path]:
    """A model, and one that goes on from it."""
    first, second = place / "first", place / "second"
    train = ("model", "train", str(place / "few"), "--epochs", "2", "--threads", "1")
    alone(*train, "--out", str(first), folder=place)
    alone(*train, "--out", str(second), "--from", str(first), folder=place)
    return first, second


def test_a_model_is_trained_judged_promoted_listed_and_rolled_back(
    fleet: Fleet, place: Path, models: tuple[Path, Path]
) -> None:
    first, second = models
    few = str(place / "few")
    evaluated = alone("model", "evaluate", str(second), few, folder=place)
    assert evaluated["judged"]["rows"] == "held_out"  # type: ignore[index]
    compared = alone("model", "compare", str(second), str(first), few, folder=place)
    assert set(compared["verdict"]) == {"pca", "pca_by_task", "pca_resolved", "top1", "top5"}  # type: ignore[call-overload]

    # Without trials of its own the coordinator cannot tell which is better.
    before = [v["version"] for v in fleet.json("model", "list")["models"]]
    made = [
        fleet.json("model", "promote", str(model), "--force")["model"]["version"]
        for model in models
    ]
    refused = fleet.tunefleet("model", "promote", made[0])
    assert refused.returncode == 28, refused.stdout + refused.stderr
    assert "0 held-out pairs" in refused.stderr
    listed = fleet.json("model", "list")["models"]
    assert [v["version"] for v in listed] == [*made[::-1], *before]
    assert [v["version"] for v in listed if v["current"]] == [made[1]]

    assert fleet.json("model", "rollback")["model"]["version"] == made[0]
    listed = {v["version"]: v for v in fleet.json("model", "list")["models"]}
    assert listed[made[0]]["current"]
    assert listed[made[1]]["rolled_back"]

    fleet.json("model", "export", made[0], str(place / "fetched"))
    for name in ("model.onnx", "checkpoint.npz"):
        assert (place / "fetched" / name).read_bytes() == (first / name).read_bytes()
    by_version = fleet.json("model", "evaluate", made[0], few, "--held-out")
    by_folder = fleet.json("model", "evaluate", str(first), few)
    assert by_version["models"][0]["metrics"] == by_folder["models"][0]["metrics"]


@pytest.mark.slow
def test_agents_rank_with_a_promoted_model_from_their_first_round(
    fleet: Fleet, network: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    version = fleet.json("model", "promote", str(models[0]), "--force")["model"]["version"]
    fleet.start_agent("one", "--target", SSE)
    eventually("the agent's profile", lambda: online(fleet) == ["one"])
    done = fleet.tunefleet(
        *("tune", str(network), "--trials", "20", "--min-gain", "0"),
        *("--output", str(tmp_path / "out")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    predictions = [p for group in report["groups"] for p in group["predictions"]]
    assert {p["model_version"] for p in predictions} == {version}

    target = ("--device", "one", "--target", SSE)
    database = str(tmp_path / "database")
    fleet.json("dataset", "export", database, "--kind", "metaschedule", *target)
    trials = len(fleet.trials())
    judged = [
        fleet.json(*("model", "evaluate", version, database, "--kind", "metaschedule"), *target)
        for _ in range(2)
    ]
    assert judged[0]["models"] == judged[1]["models"], "a second import was judged otherwise"
    assert 0 < judged[0]["judged"]["trials"] <= judged[0]["dataset"]["trials"] <= trials
    assert judged[0]["dataset"]["name"] == "database"
