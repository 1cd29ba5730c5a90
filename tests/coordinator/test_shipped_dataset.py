"""The dataset that ships with the project: readable, honest about itself, and without what is
reserved for evaluation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "datasets" / "zen4-one-core"
LARGEST_BYTES = 20 * 10**6
RESERVED = ("alexnet", "densenet", "inception", "shufflenet", "zfnet", "googlenet")


@pytest.fixture(scope="module")
def stats() -> dict[str, Any]:
    """What the command counts, which checks every row on the way."""
    done = subprocess.run(
        [sys.executable, "-m", "tunefleet.cli", *("dataset", "stats", FOLDER, "--format", "json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, Any] = json.loads(done.stdout)["stats"]
    return counted


def test_it_is_as_large_as_promised(stats: dict[str, Any]) -> None:
    assert stats["trials"] >= 40_000
    assert stats["workloads"] >= 300


def test_every_trial_has_features_and_nearly_every_one_a_latency(stats: dict[str, Any]) -> None:
    assert stats["featured"] == stats["trials"] > 0
    assert stats["measured"] > 0.95 * stats["trials"]


def test_every_target_has_its_share(stats: dict[str, Any]) -> None:
    cpus = {json.loads(target["name"])["mcpu"]: target["trials"] for target in stats["targets"]}
    assert set(cpus) == {"x86-64-v2", "x86-64-v3", "x86-64-v4"}
    assert min(cpus.values()) > 0.8 * max(cpus.values())


def test_networks_reserved_for_evaluation_are_not_in_it(stats: dict[str, Any]) -> None:
    names = [source["name"].lower() for source in stats["sources"]]
    assert len(names) > 20
    assert not [name for name in names if any(word in name for word in RESERVED)]


def test_its_card_says_what_is_in_it(stats: dict[str, Any]) -> None:
    card = (FOLDER / "README.md").read_text()
    assert f"{stats['trials']:,} trials" in card
    assert "tunefleet collect" in card
    assert "None was named" not in card, "a licence must be named"


def test_it_stays_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LARGEST_BYTES
