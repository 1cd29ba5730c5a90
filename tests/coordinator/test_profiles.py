"""What TenSet's devices are, given by whoever knows it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import PROFILE
from tenset_lines import TARGET, write_tenset

from coordinator.study.opening import open_corpus
from coordinator.study.workbook import corpus_digest
from tunefleet.cli.app import run
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import hardware_vector
from tunefleet.targets import canonical_target

PLAIN = json.loads(PROFILE.to_json())


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def tenset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tenset(tmp_path_factory.mktemp("tenset") / "dataset", tasks=2)


def written(folder: Path, content: Any) -> str:
    path = folder / "profile.json"
    path.write_text(json.dumps(content))
    return str(path)


@pytest.mark.parametrize("shown", [PLAIN, {"profile": PLAIN}, {"device": {"profile": PLAIN}}])
def test_a_device_is_what_its_profile_says(
    shown: Mapping[str, Any], tenset: Path, tmp_path: Path
) -> None:
    place = tenset / "measure_records" / "platinum-8272"
    opened = open_corpus(place, profiles=[("", written(tmp_path, shown))])
    hardware = opened.corpus.arrays.hardware
    expected = np.array(hardware_vector(PROFILE, canonical_target(TARGET)), np.float32)
    np.testing.assert_array_equal(hardware, np.tile(expected, (len(hardware), 1)))
    assert "What platinum-8272 is was given as a profile." in opened.notes[0]
    assert "unknown" not in opened.notes[0]


def test_without_a_profile_hardware_is_unknown_and_that_is_said_once(tenset: Path) -> None:
    opened = open_corpus(tenset)
    assert np.isnan(opened.corpus.arrays.hardware).all()
    assert " ".join(opened.notes).count("unknown") == 1


def test_of_several_devices_some_may_be_known(tenset: Path, tmp_path: Path) -> None:
    opened = open_corpus(tenset, profiles=[("e5-2673", written(tmp_path, PLAIN))])
    arrays = opened.corpus.arrays
    known = np.array([arrays.group_keys[group][2] == "e5-2673" for group in arrays.group])
    assert np.isnan(arrays.hardware[~known]).all()
    assert not np.isnan(arrays.hardware[known]).all(axis=1).any()
    assert "The hardware of platinum-8272 counts as unknown." in opened.notes[0]
    assert corpus_digest(opened.corpus) != corpus_digest(open_corpus(tenset).corpus)


@pytest.mark.parametrize(
    ("device", "content", "why"),
    [
        ("", PLAIN, "are of 2: e5-2673, platinum-8272"),
        ("t4", PLAIN, "no records of a device 't4'"),
        ("e5-2673", [1], "is no device's profile"),
        ("e5-2673", {"arch": "x86_64"}, "is no device's profile"),
        ("e5-2673", {**PLAIN, "simd_bits": "many"}, "is no device's profile"),
    ],
)
def test_what_says_nothing_is_refused(
    device: str, content: Any, why: str, tenset: Path, tmp_path: Path
) -> None:
    with pytest.raises(TuneFleetError, match=why) as raised:
        open_corpus(tenset, profiles=[(device, written(tmp_path, content))])
    assert raised.value.reason is Reason.INVALID_ARGUMENT


def test_every_command_that_reads_tensets_files_takes_one(
    tenset: Path, some_shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = ["--profile", f"e5-2673={written(tmp_path, PLAIN)}"]
    made = str(tmp_path / "made")
    train = ["model", "train", str(tenset), "--out", made, "--epochs", "1", "--threads", "1"]
    assert run([*train, *profile]) == 0
    assert run(["model", "evaluate", made, str(tenset), "--all", *profile]) == 0
    study = ["study", "splits", str(tenset), "--out", str(tmp_path / "s"), "--seeds", "1"]
    assert run([*study, "--split", "within_task", "--model", "random", *profile]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("What e5-2673 is was given as a profile") == 3
    assert "--profile e5-2673=profile.json" in (tmp_path / "made" / "README.md").read_text()
    refused = run(["model", "evaluate", made, str(some_shipped), *profile])
    assert refused == Reason.INVALID_ARGUMENT.value.exit_code
    assert "a profile is for TenSet's files" in capsys.readouterr().err
