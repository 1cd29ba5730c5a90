"""``tunefleet model evaluate`` and ``compare``: how models rank a dataset, and what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_folders import train_small, untrained, write_dataset, write_model

from coordinator.costmodel.train import score
from coordinator.study.corpus import load_corpus
from coordinator.study.evaluate_job import AHEAD, BEHIND, EQUAL, TOO_FEW, verdict
from coordinator.study.evaluation import Interval, evaluate
from tunefleet.cli.app import run
from tunefleet.cli.local_jobs import ModelFiles, evaluate_models
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, ONNX_FILE


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "some")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    """A folder with three models, of which each says something else of what it learned from."""
    place = tmp_path_factory.mktemp("models")
    corpus = load_corpus(dataset)
    lock = MachineLock(place / "lock")
    elsewhere = [{"name": "far", "digest": "0" * 16}]
    here = [{"name": "some", "digest": corpus.digest()}]
    good, bad = train_small(lock), train_small(lock, upside_down=True)
    write_model(place / "good", good, trained_on=elsewhere, workloads=[corpus.workloads[0]])
    write_model(place / "bad", bad)
    write_model(place / "ours", untrained(), trained_on=here, workloads=list(corpus.workloads))
    return place


def judged(folder: Path, dataset: Path, *names: str, **changes: Any) -> dict[str, Any]:
    models = [ModelFiles(name, folder / name / ONNX_FILE, folder / name) for name in names]
    return evaluate_models(models, dataset, **({"rows": "auto"} | changes))


class TestFigures:
    def test_the_onnx_file_is_judged_as_the_model_it_was_made_of(
        self, folder: Path, dataset: Path
    ) -> None:
        told: list[tuple[float, str]] = []
        result = judged(folder, dataset, "ours", rows="all", activity=lambda *s: told.append(s))
        corpus = load_corpus(dataset)
        scores = score(untrained(), corpus.arrays)
        wanted = evaluate(corpus, np.arange(len(corpus)), scores).figures()
        [model] = result["models"]
        for name, figure in model["metrics"].items():
            assert figure["value"] == pytest.approx(wanted[name], abs=0.01)
            assert figure["low"] <= figure["value"] <= figure["high"]
        shares = [share for share, _ in told]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)

    def test_lists_too_short_to_tell_are_pointed_out(self, folder: Path, dataset: Path) -> None:
        assert "top-5" not in " ".join(judged(folder, dataset, "good")["notes"])
        held_out = judged(folder, dataset, "good", rows="held_out")
        assert "6 of 6 tasks have 5 trials or fewer" in held_out["notes"][-1]
        assert held_out["models"][0]["metrics"]["top5"]["value"] == 1.0

    def test_every_task_can_be_looked_at(self, folder: Path, dataset: Path) -> None:
        result = judged(folder, dataset, "good", per_task=True)
        tasks = result["models"][0]["tasks"]
        assert len(tasks) == result["judged"]["tasks"] == 6
        for number, task in enumerate(sorted(tasks, key=lambda t: str(t["workload"]))):
            assert task["workload"] == f"{number:016x}"
            assert task["sources"] == [f"net-{number % 3}"]
            assert task["trials"] == 20
            assert task["best_s"] == pytest.approx((100 * number + 1) / 1000)
            assert 0 < task["top1"] <= task["top5"] <= 1
            assert task["pca"] > 0.8
        assert "tasks" not in judged(folder, dataset, "good")["models"][0]

    def test_only_the_trials_that_are_named_are_judged(
        self, folder: Path, dataset: Path, tmp_path: Path
    ) -> None:
        corpus = load_corpus(dataset)
        only = tmp_path / "only.txt"
        names = [n for n, w in zip(corpus.trial_ids, corpus.workload, strict=True) if w < 2]
        only.write_text("\n".join([*names, "f" * 32]))
        result = judged(folder, dataset, "good", only=only)
        assert (result["judged"]["tasks"], result["judged"]["trials"]) == (2, 40)
        only.write_text("f" * 32)
        with pytest.raises(TuneFleetError, match="none of the trials") as raised:
            judged(folder, dataset, "good", only=only)
        assert raised.value.reason is Reason.DATASET_INVALID


class TestWhatWasLearnedFrom:
    def test_of_its_own_dataset_held_out_trials_alone_are_judged(
        self, folder: Path, dataset: Path
    ) -> None:
        result = judged(folder, dataset, "ours")
        assert (result["judged"]["rows"], result["judged"]["trials"]) == ("held_out", 24)
        assert "learned from this very dataset" in result["notes"][0]
        result = judged(folder, dataset, "ours", rows="all")
        assert result["judged"]["trials"] == 120
        assert "it knows the answers" in result["notes"][0]

    def test_workloads_that_a_model_knows_are_counted(self, folder: Path, dataset: Path) -> None:
        result = judged(folder, dataset, "good")
        assert (result["judged"]["rows"], result["judged"]["trials"]) == ("all", 120)
        assert result["notes"] == ["good learned from other trials of 1 of these 6 workloads."]

    def test_a_model_that_does_not_say_is_doubted(self, folder: Path, dataset: Path) -> None:
        [note] = judged(folder, dataset, "bad")["notes"]
        assert "not known what bad learned from" in note
        told = judged(folder, dataset, "bad", rows="held_out")["notes"]
        assert "not known" not in " ".join(told)

    def test_two_models_are_judged_by_what_neither_has_seen(
        self, folder: Path, dataset: Path
    ) -> None:
        assert judged(folder, dataset, "good", "ours")["judged"]["rows"] == "held_out"

    @pytest.mark.parametrize("content", ["", "[]", '{"trained_on": 7}', '{"trained_on": [{}]}'])
    def test_nonsense_beside_a_model_says_nothing(
        self, folder: Path, dataset: Path, tmp_path: Path, content: str
    ) -> None:
        (tmp_path / ABOUT_FILE).write_text(content)
        model = ModelFiles("good", folder / "good" / ONNX_FILE, tmp_path)
        [note] = evaluate_models([model], dataset, rows="auto")["notes"]
        assert "not known" in note


class TestComparison:
    def test_the_better_is_ahead_and_the_worse_behind(self, folder: Path, dataset: Path) -> None:
        result = judged(folder, dataset, "good", "bad")
        assert result["verdict"]["pca"] == AHEAD
        assert result["difference"]["pca"]["low"] > 0.5
        again = judged(folder, dataset, "bad", "good")
        assert again["verdict"]["pca"] == BEHIND
        assert again["difference"]["pca"]["value"] == -result["difference"]["pca"]["value"]

    def test_a_model_is_no_better_than_itself(self, folder: Path, dataset: Path) -> None:
        assert set(judged(folder, dataset, "good", "good")["verdict"].values()) == {EQUAL}

    def test_few_workloads_tell_nothing(self, folder: Path, tmp_path: Path) -> None:
        few = write_dataset(tmp_path / "few", workloads=4)
        assert set(judged(folder, few, "good", "bad")["verdict"].values()) == {TOO_FEW}

    def test_an_interval_that_reaches_zero_decides_nothing(self) -> None:
        assert verdict(Interval(0.1, 0.0, 0.2), 9) == EQUAL
        assert verdict(Interval(-0.1, -0.2, -0.01), 9) == BEHIND
        assert verdict(Interval(float("nan"), float("nan"), float("nan")), 9) == EQUAL


class TestCommands:
    def test_people_see_figures_and_what_to_beware_of(
        self, folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        command = ["model", "evaluate", str(folder / "ours"), str(dataset), "--per-task"]
        assert run(command) == 0
        shown = capsys.readouterr().out
        for told in (
            *("PCA beyond noise", "top-5", "24 trials (held out of every training)", "net-1"),
            *("llvm znver4, 2 threads", "6 workloads", "learned from this very dataset"),
        ):
            assert told in shown, told

    def test_scripts_get_one_object(
        self, folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        onnx = str(folder / "good" / ONNX_FILE)
        assert run(["model", "evaluate", onnx, str(dataset), "--format", "json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["models"][0]["name"] == ONNX_FILE
        assert told["models"][0]["metrics"]["pca"]["value"] > 0.8

    def test_a_comparison_ends_with_a_sentence(
        self, folder: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        models = [str(folder / name) for name in ("good", "bad")]
        assert run(["model", "compare", *models, str(dataset)]) == 0
        shown = capsys.readouterr().out
        assert "good is ahead of bad: PCA differs by +" in shown
        assert run(["model", "compare", models[0], models[0], str(dataset)]) == 0
        assert "Between good and good: no difference to be seen" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "failure"),
        [
            (["missing/model", "DATA"], (Reason.MODEL_INVALID, "no such file")),
            (["missing.onnx", "DATA"], (Reason.MODEL_INVALID, "no such file")),
            (["DATA", "DATA"], (Reason.MODEL_INVALID, "holds no model.onnx")),
            (["GOOD", "missing"], (Reason.DATASET_INVALID, "no such file")),
            (["GOOD", "DATA", "--all", "--held-out"], (Reason.INVALID_ARGUMENT, "exclude")),
            (["GOOD", "DATA", "--device", "box"], (Reason.INVALID_ARGUMENT, "MetaSchedule")),
            (["GOOD", "DATA", "--kind", "metaschedule"], (Reason.INVALID_ARGUMENT, "--device")),
            (
                ["v1", "DATA", "--coordinator", "127.0.0.1:1"],
                (Reason.COORDINATOR_UNREACHABLE, "no coordinator answers"),
            ),
        ],
    )
    def test_failures_have_their_exit_codes(
        self,
        folder: Path,
        dataset: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        failure: tuple[Reason, str],
    ) -> None:
        reason, why = failure
        places = {"GOOD": str(folder / "good"), "DATA": str(dataset)}
        given = [places.get(a, a) for a in arguments]
        assert run(["model", "evaluate", *given]) == reason.value.exit_code
        assert why in capsys.readouterr().err

    def test_a_file_that_is_no_model_is_refused(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        code = run(["model", "evaluate", str(tmp_path / "model.onnx"), str(dataset)])
        assert code == Reason.MODEL_INVALID.value.exit_code
        assert "cannot be loaded as ONNX" in capsys.readouterr().err
