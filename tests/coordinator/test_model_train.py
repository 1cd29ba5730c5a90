"""``tunefleet model train``: datasets in, models with their cards out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folders import write_dataset

from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.study.corpus import load_corpus
from coordinator.study.train_job import train_model as train_here
from tunefleet.cli.app import run
from tunefleet.cli.local_jobs import train_model
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.model_files import ABOUT_FILE, CARD_FILE, CHECKPOINT_FILE, ONNX_FILE

FILES = sorted((ONNX_FILE, CHECKPOINT_FILE, CARD_FILE, ABOUT_FILE))


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "some")


def trained(place: Path, out: Path, **changes: Any) -> dict[str, Any]:
    options = {"parent": None, "seed": 0, "threads": 1, "epochs": 2}
    return train_model(place, out, **(options | changes))


@pytest.fixture(scope="module")
def model(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "mine"
    told: list[tuple[float, str]] = []
    trained(dataset, out, epochs=12, activity=lambda *step: told.append(step))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert any("step 11 of 12" in message for _, message in told)
    return out


def about(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / ABOUT_FILE).read_text())
    return content


def refusal(place: Path, out: Path, **changes: Any) -> TuneFleetError:
    with pytest.raises(TuneFleetError) as raised:
        trained(place, out, **changes)
    return raised.value


class TestFolder:
    def test_it_holds_the_model_and_nothing_else(self, model: Path, dataset: Path) -> None:
        assert sorted(path.name for path in model.iterdir()) == FILES
        checkpoint = Checkpoint.load(model / CHECKPOINT_FILE)
        assert (checkpoint.version, checkpoint.parent_version) == ("mine", "")
        found = OnnxModel(model / ONNX_FILE)
        assert found.version == "mine"
        corpus = load_corpus(dataset)
        assert np.ptp(found.scores(corpus.arrays, np.arange(len(corpus)))) > 0

    def test_it_says_what_it_learned_from_and_how(self, model: Path, dataset: Path) -> None:
        told, corpus = about(model), load_corpus(dataset)
        assert told["feature_schema"] == schema_digest()
        assert told["trained_on"] == [{"name": "some", "digest": corpus.digest()}]
        assert told["workloads"] == sorted(corpus.workloads)
        assert told["dataset"]["licence"] == "CC-BY-4.0"
        assert told["parent"] is None
        assert told["training"]["rows_trained"] == int((~corpus.arrays.held_out).sum()) == 96
        assert (told["training"]["steps"], told["training"]["processes"]) == (12, 1)
        assert told["training"]["config"]["seed"] == 0
        assert told["onnx_max_diff"] <= 1e-4

    def test_figures_are_of_held_out_trials_and_have_intervals(self, model: Path) -> None:
        told = about(model)
        for metrics in (told["metrics"], told["metrics_trained"]):
            assert set(metrics) == {"pca", "pca_by_task", "pca_resolved", "top1", "top5"}
            for figure in metrics.values():
                assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
        # A dozen steps suffice to learn that larger is slower.
        assert told["metrics"]["pca"]["value"] > 0.8

    def test_the_card_has_all_that_people_must_know(self, model: Path) -> None:
        card = (model / CARD_FILE).read_text()
        for told in (
            *("# mine: a cost model", "Made up for tests.", "CC-BY-4.0", "96 of 120 trials"),
            *("tunefleet model train some --out mine", "--epochs 12", "12 steps with seed 0"),
            *("llvm znver4, 2 threads", "## Limits", "pca_by_task", "from scratch"),
            "24 trials of 6 tasks, 4 each at the median",
        ):
            assert told in card, told


class TestLineage:
    def test_a_model_goes_on_from_another_and_keeps_what_that_learned_in_mind(
        self, model: Path, dataset: Path, tmp_path: Path
    ) -> None:
        other = write_dataset(tmp_path / "other", workloads=8, per_task=10)
        result = trained(other, tmp_path / "tuned", parent=model)
        told = about(tmp_path / "tuned")
        assert result["parent"]["name"] == told["parent"]["name"] == "mine"
        assert [d["name"] for d in told["trained_on"]] == ["some", "other"]
        assert len(told["workloads"]) == 8
        mine, tuned = (
            Checkpoint.load(folder / CHECKPOINT_FILE) for folder in (model, tmp_path / "tuned")
        )
        assert tuned.parent_version == "mine"
        assert tuned.rows_normalised == mine.rows_normalised
        for name in ("normaliser.program_mean", "normaliser.bin_start"):
            np.testing.assert_array_equal(tuned.weights[name], mine.weights[name])
        assert (tuned.weights["store.weight"] != mine.weights["store.weight"]).any()
        card = (tmp_path / "tuned" / CARD_FILE).read_text()
        assert "on from the model mine" in card
        assert "some (`" in card

    def test_what_a_parent_does_not_say_is_not_known(
        self, model: Path, dataset: Path, tmp_path: Path
    ) -> None:
        bare = tmp_path / "bare"
        bare.mkdir()
        (bare / CHECKPOINT_FILE).write_bytes((model / CHECKPOINT_FILE).read_bytes())
        trained(dataset, tmp_path / "tuned", parent=bare)
        assert about(tmp_path / "tuned")["trained_on"] is None
        assert "is not known" in (tmp_path / "tuned" / CARD_FILE).read_text()


class TestRefusals:
    def test_a_folder_with_something_in_it_is_left_alone(self, dataset: Path, model: Path) -> None:
        before = (model / ABOUT_FILE).read_bytes()
        assert refusal(dataset, model).reason is Reason.INVALID_ARGUMENT
        assert (model / ABOUT_FILE).read_bytes() == before

    def test_what_is_no_model_cannot_be_gone_on_from(self, dataset: Path, tmp_path: Path) -> None:
        for parent in (dataset, tmp_path / "missing"):
            error = refusal(dataset, tmp_path / "out", parent=parent)
            assert error.reason is Reason.MODEL_INVALID
            assert "tunefleet model train" in error.hint
        assert not (tmp_path / "out").exists()

    def test_what_is_no_dataset_is_refused(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "missing"):
            assert refusal(place, tmp_path / "out").reason is Reason.DATASET_INVALID
        lonely = write_dataset(tmp_path / "lonely", workloads=3, per_task=1)
        error = refusal(lonely, tmp_path / "out")
        assert error.reason is Reason.DATASET_INVALID
        assert "nothing to learn from" in error.message


def test_what_was_interrupted_goes_on_where_it_was(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--epochs", "400", "--threads", "1", "--seed", "0"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tunefleet.cli", "model", "train", str(dataset)),
            *("--out", str(out), *options),
        ],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / ".training").exists():
        assert process.poll() is None, "it ended before it began"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == Reason.INTERRUPTED.value.exit_code
    assert f"kept in {out}" in printed
    assert "The same command goes on" in printed
    state = out / ".training" / "state.npz"
    with np.load(state) as file:
        done = json.loads(file["meta"].tobytes())["step"]
    assert 1 <= done < 400

    told: list[str] = []

    class EnoughError(Exception):
        pass

    def watch(_share: float, message: str) -> None:
        told.append(message)
        if message.startswith("step"):
            raise EnoughError

    spec = {"place": str(dataset), "out_dir": str(out), "epochs": 400, "threads": 1, "seed": 0}
    with pytest.raises(EnoughError):
        train_here(spec, watch)
    first = int(told[-1].split()[1])
    assert first > done
    assert first - done <= 10


def test_several_processes_train_one_model(dataset: Path, tmp_path: Path) -> None:
    spec = {
        "place": str(dataset),
        "out_dir": str(tmp_path / "ours"),
        "epochs": 3,
        "threads": 1,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *("-m", "coordinator.study.train_job", "--spec", str(tmp_path / "spec.json")),
            *("--out", str(tmp_path / "out.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["training"]["processes"], result["training"]["steps"]) == (2, 3)
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == FILES
    steps = [line for line in done.stdout.splitlines() if '"step 1 of 3' in line]
    assert len(steps) == 1, "each process told of its progress"


class TestCommand:
    def test_people_see_figures_and_files(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        command = ["model", "train", str(dataset), "--out", str(out), "--epochs", "1"]
        assert run([*command, "--threads", "1"]) == 0
        shown = capsys.readouterr().out
        for told in ("PCA beyond noise", "held out", "96 of 120 trials", "Written to", ONNX_FILE):
            assert told in shown
        assert run([*command, "--format", "json"]) == Reason.INVALID_ARGUMENT.value.exit_code
        assert json.loads(capsys.readouterr().out)["error"]["reason"] == "INVALID_ARGUMENT"
