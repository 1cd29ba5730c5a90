"""Models that rank by schedule steps: trained, judged and studied by the same commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from model_folders import train_small, write_dataset
from model_folders import write_model as write_stores_model
from tenset_lines import write_tenset

from coordinator.costmodel import check_job
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.feature_sets import STEPS, STORES
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.study.job import run_study
from tunefleet.cli.app import run
from tunefleet.cli.local_jobs import ModelFiles, evaluate_models, train_model
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, CARD_FILE, CHECKPOINT_FILE, ONNX_FILE

BROKEN = ["{", '{"i": []}']


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def tenset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tenset(tmp_path_factory.mktemp("tenset") / "dataset", broken=BROKEN)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "some")


def trained(place: Path, out: Path, **changes: Any) -> dict[str, Any]:
    options = {"parent": None, "seed": 0, "threads": 1, "epochs": 2}
    return train_model(place, out, **(options | changes))


@pytest.fixture(scope="module")
def of_tenset(tenset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "of-tenset"
    trained(tenset, out, epochs=12, per_task=12)
    return out


@pytest.fixture(scope="module")
def of_steps(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "of-steps"
    trained(ours, out, epochs=12, features="steps")
    return out


@pytest.fixture(scope="module")
def of_stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return write_stores_model(folder / "of-stores", train_small(MachineLock(folder / "lock")))


def judged(place: Path, *models: Path, **changes: Any) -> dict[str, Any]:
    files = [ModelFiles(model.name, model / ONNX_FILE, model) for model in models]
    return evaluate_models(files, place, **({"rows": "auto"} | changes))


def refusal(work: Any, *arguments: Any, **options: Any) -> TuneFleetError:
    with pytest.raises(TuneFleetError) as raised:
        work(*arguments, **options)
    return raised.value


class TestTraining:
    def test_a_folder_says_what_its_model_ranks_by(self, of_tenset: Path, of_steps: Path) -> None:
        for folder in (of_tenset, of_steps):
            told = json.loads((folder / ABOUT_FILE).read_text())
            assert (told["features"], told["feature_schema"]) == ("steps", STEPS.schema())
            assert told["onnx_max_diff"] <= 1e-4
            assert Checkpoint.load(folder / CHECKPOINT_FILE).features is STEPS
            found = OnnxModel(folder / ONNX_FILE, allowed=(STORES, STEPS))
            assert found.features is STEPS
            card = (folder / CARD_FILE).read_text()
            assert "a row a schedule step" in card
            assert "Agents cannot rank with it" in card

    def test_it_learned_what_there_was(self, of_tenset: Path, of_steps: Path) -> None:
        for folder in (of_tenset, of_steps):
            told = json.loads((folder / ABOUT_FILE).read_text())
            assert told["metrics"]["pca"]["value"] > 0.7

    def test_it_tells_how_tensets_files_were_read(self, of_tenset: Path) -> None:
        told = json.loads((of_tenset / ABOUT_FILE).read_text())
        assert told["dataset"]["unusable"]["count"] == len(BROKEN)
        assert "at most 12 of each of 16 tasks" in told["dataset"]["notes"][0]
        card = (of_tenset / CARD_FILE).read_text()
        assert "2 of what was read could not be used" in card
        assert "--per-task 12" in card

    def test_it_goes_on_with_the_features_it_has(
        self, of_tenset: Path, of_stores: Path, ours: Path, tenset: Path, tmp_path: Path
    ) -> None:
        trained(ours, tmp_path / "on", parent=of_tenset)
        assert json.loads((tmp_path / "on" / ABOUT_FILE).read_text())["features"] == "steps"
        for place, parent, features in (
            (ours, of_stores, "steps"),
            (ours, of_tenset, "stores"),
        ):
            error = refusal(trained, place, tmp_path / "not", parent=parent, features=features)
            assert error.reason is Reason.MODEL_INVALID
            assert "cannot go on" in error.message
        error = refusal(trained, tenset, tmp_path / "not", parent=of_stores)
        assert error.reason is Reason.MODEL_INVALID
        assert "ranks by stores" in error.message


class TestJudging:
    def test_a_model_is_shown_what_it_ranks_by(self, of_steps: Path, ours: Path) -> None:
        result = judged(ours, of_steps)
        assert result["models"][0]["features"] == "steps"
        assert result["models"][0]["metrics"]["pca"]["value"] > 0.7
        assert (result["judged"]["rows"], result["judged"]["trials"]) == ("held_out", 24)

    def test_both_feature_sets_are_compared_on_the_same_trials(
        self, of_steps: Path, of_stores: Path, ours: Path
    ) -> None:
        result = judged(ours, of_steps, of_stores, rows="all")
        assert [model["features"] for model in result["models"]] == ["steps", "stores"]
        alone = [judged(ours, model, rows="all")["models"][0] for model in (of_steps, of_stores)]
        assert [model["metrics"] for model in result["models"]] == [m["metrics"] for m in alone]
        assert set(result["difference"]) == set(result["models"][0]["metrics"])

    def test_tensets_files_are_judged_and_what_is_broken_is_named(
        self, of_steps: Path, tenset: Path
    ) -> None:
        result = judged(tenset, of_steps, per_task=True, sample=5)
        assert result["judged"]["trials"] == 16 * 5
        assert len(result["models"][0]["tasks"]) == 16
        assert result["models"][0]["tasks"][0]["sources"] == ["net_0"]
        assert result["unusable"]["count"] == len(BROKEN)
        assert "line 16" in result["unusable"]["named"][0]["where"]

    def test_of_another_sample_of_its_files_held_out_records_alone_are_judged(
        self, of_tenset: Path, tenset: Path
    ) -> None:
        result = judged(tenset, of_tenset)
        assert result["judged"]["rows"] == "held_out"
        assert result["judged"]["trials"] < 16 * 15 / 3
        assert any("learned from a sample" in note for note in result["notes"])

    def test_what_does_not_fit_is_refused(
        self, of_steps: Path, of_stores: Path, ours: Path, tenset: Path
    ) -> None:
        error = refusal(judged, tenset, of_stores)
        assert error.reason is Reason.MODEL_INVALID
        assert "of-stores ranks by stores" in error.message
        error = refusal(judged, ours, of_steps, features="stores")
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "of-steps ranks by steps" in error.message


def test_agents_never_get_one(of_steps: Path, tmp_path: Path) -> None:
    sent = shutil.copytree(of_steps, tmp_path / "sent")
    spec = {"onnx": str(sent / ONNX_FILE), "checkpoint": str(sent / CHECKPOINT_FILE)}
    error = refusal(check_job.check_model, spec, lambda *_: None)
    assert error.reason is Reason.MODEL_INVALID
    assert "ranks by schedule steps" in error.message
    assert "schema" in refusal(OnnxModel, of_steps / ONNX_FILE).message


SMALL = {
    "splits": {"splits": ["by_task"]},
    "pruning": {"splits": ["by_task"], "models": ["random", "combined"]},
    "transfer": {"splits": ["by_target"]},
    "ablation": {"splits": ["by_task"], "models": ["whole", "no hardware", "pooling: sum"]},
    "features": {},
    "curves": {"models": ["attention"]},
    "calibration": {"splits": ["by_task"]},
}


def studied(name: str, place: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    spec = {"study": name, "place": str(place), "folder": str(folder)}
    usual = {"seeds": [0], "threads": 1, "steps": 3}
    return run_study(spec | usual | changes, lambda _share, _message: None)


class TestStudies:
    @pytest.mark.parametrize("name", SMALL)
    def test_every_study_takes_tensets_files(self, name: str, tenset: Path, tmp_path: Path) -> None:
        result = studied(name, tenset, tmp_path, per_task=10, **SMALL[name])
        assert (result["features"], result["trials"]) == ("steps", 160)
        assert all(table["rows"] for table in result["tables"])
        assert result["unusable"]["count"] == len(BROKEN)
        report = (tmp_path / f"{name}.md").read_text()
        assert "2 of what was read could not be used" in report
        assert "line 17" in report

    def test_what_makes_no_sense_of_steps_is_said_to_be_left_out(
        self, tenset: Path, tmp_path: Path
    ) -> None:
        relations = "no relations of program to hardware"
        only = {"splits": ["by_task"], "models": ["whole", relations]}
        result = studied("ablation", tenset, tmp_path / "a", **only)
        assert [row["variant"] for row in result["tables"][0]["rows"]] == ["whole"]
        assert any(relations in note for note in result["notes"])
        error = refusal(studied, "ablation", tenset, tmp_path / "b", models=[relations])
        assert error.reason is Reason.INVALID_ARGUMENT
        result = studied("features", tenset, tmp_path / "c", splits=["by_task"])
        assert [row["features"] for row in result["tables"][0]["rows"]] == ["steps"]
        assert any(
            "Buffer stores and schedules' rows are left out" in note for note in result["notes"]
        )

    def test_splits_that_one_target_does_not_allow_are_left_out(
        self, tenset: Path, tmp_path: Path
    ) -> None:
        place = tenset / "measure_records" / "e5-2673"
        result = studied("splits", place, tmp_path, models=["random"])
        found = {row["split"] for row in result["tables"][0]["rows"]}
        assert found == {"within_task", "by_task", "by_network"}
        told = " ".join(result["notes"])
        assert "by_target is left out" in told
        assert "unseen_both is left out" in told
        error = refusal(studied, "splits", place, tmp_path, splits=["by_target"])
        assert error.reason is Reason.SPLIT_IMPOSSIBLE

    def test_our_own_trials_can_be_studied_by_their_steps(self, ours: Path, tmp_path: Path) -> None:
        options = {"splits": ["by_task"], "models": ["attention", "mlp", "xgb_hw"]}
        result = studied("splits", ours, tmp_path, features="steps", **options)
        assert result["features"] == "steps"
        assert studied("splits", ours, tmp_path, **options)["features"] == "stores"
        error = refusal(studied, "features", ours, tmp_path, features="steps")
        assert error.reason is Reason.INVALID_ARGUMENT


class TestCommands:
    def test_people_see_what_could_not_be_used(
        self, tenset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "made"
        train = ["model", "train", str(tenset), "--out", str(out), "--epochs", "1"]
        assert run([*train, "--threads", "1", "--per-task", "6"]) == 0
        shown = capsys.readouterr().out
        assert "schedule steps" in shown
        assert "2 of what was read could not be used" in shown
        assert run(["model", "evaluate", str(out), str(tenset), "--sample", "6"]) == 0
        shown = capsys.readouterr().out
        assert "2 of what was read could not be used" in shown
        assert "net_" not in shown
        study = ["study", "splits", str(tenset), "--out", str(tmp_path / "study"), "--seeds", "1"]
        only = ["--split", "by_task", "--model", "random", "--per-task", "6"]
        assert run([*study, *only, "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["trials"], told["unusable"]["count"]) == (96, 2)

    def test_stores_of_tensets_files_are_refused(
        self, tenset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["model", "train", str(tenset), "--out", str(tmp_path / "out")]
        found = run([*command, "--features", "stores"])
        assert found == Reason.INVALID_ARGUMENT.value.exit_code
        assert "cannot lower" in capsys.readouterr().err
