"""``tunefleet dataset prune``: datasets in, smaller datasets out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from costmodel_rows import fitted, synthetic_rows
from store_samples import KEY, PROFILE, features, trial

from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.export import export
from coordinator.costmodel.model import CostModel
from coordinator.dataset.reading import find_parts, read_devices, read_workloads
from coordinator.dataset.schema import TRIAL_COLUMNS, About
from coordinator.dataset.stats_job import dataset_stats
from coordinator.dataset.writing import (
    trial_row,
    trials_writer,
    write_devices,
    write_workloads,
)
from coordinator.models.job import Progress
from coordinator.state.trial_records import ProfileRecord, TrialRecord, WorkloadRecord
from coordinator.study.corpus import load_corpus
from coordinator.study.model_spread import model_spread
from coordinator.study.prune_job import prune_dataset
from coordinator.study.pruning import STRATEGIES
from tunefleet.cli import dataset_prune
from tunefleet.cli.app import run
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.trials import Verdict

SHIPPED = Path(__file__).parents[2] / "datasets" / "zen4-one-core"
OTHER = replace(KEY, workload="00000000000000cc")


def record(number: int, **changes: Any) -> TrialRecord:
    key = OTHER if number % 2 else KEY
    made = trial(number, **{"features": features(number), **changes})
    return TrialRecord(key, "id-pi4", "c-1", "conv2d", {"resnet50": 2}, made)


def written(path: Path, records: Sequence[TrialRecord], **about: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with trials_writer(path, About(**about)) as table:
        for each in records:
            table.add(trial_row(each, PROFILE.to_json()))
    return path.parent


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twenty trials of two workloads, and a third workload and device without any."""
    place = written(
        tmp_path / "some" / "trials.parquet",
        [record(n) for n in range(1, 21)],
        licence="CC-BY-4.0",
        description="Twenty trials.",
    )
    names = (KEY.workload, OTHER.workload, "00000000000000dd")
    workloads = [(WorkloadRecord(n, "", "conv2d", 1e9, {"vgg": 1}), '{"m": 1}') for n in names]
    write_workloads(place / "workloads.parquet", About(), workloads)
    devices = [
        ProfileRecord("id-pi4", "pi4", PROFILE),
        ProfileRecord("id-other", "other", replace(PROFILE, memory_bytes=1 << 30)),
    ]
    write_devices(place / "devices.parquet", About(), devices)
    return place


def pruned(
    place: Path, out: Path, progress: Progress = lambda *_: None, **changes: Any
) -> dict[str, Any]:
    """Do the job as the command has it done, but in this process."""
    spec = {"place": str(place), "out_dir": str(out), "model": None}
    options = {"keep": 0.5, "strategy": "random", "seed": 0}
    return prune_dataset(spec | options | changes, progress)


def refusal(place: Path, out: Path, **changes: Any) -> TuneFleetError:
    """Prune in vain; nothing may be left behind."""
    before = sorted(path.name for path in out.parent.iterdir())
    with pytest.raises(TuneFleetError) as raised:
        pruned(place, out, **changes)
    assert sorted(path.name for path in out.parent.iterdir()) == before
    return raised.value


def rows_by_id(place: Path) -> dict[str, dict[str, Any]]:
    return {row["trial_id"]: row for row in pq.read_table(place / "trials.parquet").to_pylist()}


class TestWhatIsWritten:
    def test_trials_that_are_kept_keep_every_column(self, dataset: Path, tmp_path: Path) -> None:
        result = pruned(dataset, tmp_path / "out")
        before, after = rows_by_id(dataset), rows_by_id(tmp_path / "out")
        assert (result["before"]["trials"], result["kept"]["trials"], len(after)) == (20, 10, 10)
        assert list(after.values()) == [before[name] for name in after]
        assert sum(row["workload"] == KEY.workload for row in after.values()) >= 2

    def test_only_workloads_and_devices_of_its_trials_stay(
        self, dataset: Path, tmp_path: Path
    ) -> None:
        pruned(dataset, tmp_path / "out")
        parts = find_parts(tmp_path / "out")
        assert parts.workloads is not None
        assert parts.devices is not None
        known = {item.workload: (item, module) for item, module in read_workloads(parts.workloads)}
        assert set(known) == {KEY.workload, OTHER.workload}
        item, module = known[KEY.workload]
        assert (item.name, item.flops, item.sources, module) == (
            *("conv2d", 1e9, {"vgg": 1}),
            '{"m": 1}',
        )
        assert list(read_devices(parts.devices)) == [ProfileRecord("id-pi4", "pi4", PROFILE)]

    def test_the_card_says_what_was_done_to_what(self, dataset: Path, tmp_path: Path) -> None:
        pruned(dataset, tmp_path / "out", strategy="label_stratified", seed=7)
        card = (tmp_path / "out" / "README.md").read_text()
        digest = load_corpus(dataset).digest()
        for told in (
            *("Twenty trials.", "CC-BY-4.0", "10 of the 20 usable trials of some", digest),
            "--strategy label_stratified --keep 0.5 --seed 7",
        ):
            assert told in card
        again = dataset_stats({"place": str(tmp_path / "out")}, lambda *_: None)
        assert again["about"]["licence"] == "CC-BY-4.0"
        assert "label_stratified" in again["about"]["description"]
        assert (again["trials"], again["rejected"]) == (10, 0)

    def test_a_file_of_trials_alone_is_a_dataset_too(self, dataset: Path, tmp_path: Path) -> None:
        result = pruned(dataset / "trials.parquet", tmp_path / "out")
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["README.md", "trials.parquet"]
        assert [Path(path).name for path in result["files"]] == names
        assert "workloads.parquet" not in (tmp_path / "out" / "README.md").read_text()

    def test_what_cannot_be_judged_is_counted(self, tmp_path: Path) -> None:
        place = written(
            tmp_path / "some" / "a.parquet",
            [
                *(record(n) for n in range(1, 9)),
                record(9, features=None),
                record(10, verdict=Verdict.LOST, samples_s=()),
            ],
        )
        written(place / "b.parquet", [record(2), record(11), record(12)])
        table = pq.read_table(place / "b.parquet")
        at = table.column_names.index("build_s")
        spoilt = pa.array([None, -1.0, None], TRIAL_COLUMNS.field("build_s").type)
        pq.write_table(table.set_column(at, "build_s", spoilt), place / "b.parquet")
        result = pruned(place, tmp_path / "out", keep=1.0)
        assert result["kept"]["trials"] == len(rows_by_id(tmp_path / "out")) == 9
        assert result["left_out"] == {
            "without features": 1,
            "lost": 1,
            "there twice": 1,
            "a row that cannot be used": 1,
        }

    def test_the_seed_decides(self, dataset: Path, tmp_path: Path) -> None:
        kept = []
        for seed in (0, 0, 1):
            out = tmp_path / f"out-{len(kept)}"
            pruned(dataset, out, seed=seed)
            kept.append(set(rows_by_id(out)))
        assert kept[0] == kept[1] != kept[2]

    def test_an_empty_folder_is_filled(self, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        pruned(dataset, tmp_path / "out")
        assert len(rows_by_id(tmp_path / "out")) == 10

    def test_progress_goes_from_reading_to_the_end(self, dataset: Path, tmp_path: Path) -> None:
        told: list[tuple[float, str]] = []
        pruned(dataset, tmp_path / "out", lambda *step: told.append(step))
        shares = [share for share, _ in told]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
        assert "choosing trials" in [message for _, message in told]


class TestRefusals:
    def test_a_folder_with_something_in_it_is_left_alone(
        self, dataset: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("precious")
        assert refusal(dataset, tmp_path / "out").reason is Reason.INVALID_ARGUMENT
        assert refusal(dataset, dataset).reason is Reason.INVALID_ARGUMENT
        assert (tmp_path / "out" / "mine").read_text() == "precious"

    def test_a_strategy_that_is_not_known_is_refused(self, dataset: Path, tmp_path: Path) -> None:
        error = refusal(dataset, tmp_path / "out", strategy="by_moon")
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "label_stratified" in error.hint

    def test_nothing_cannot_be_kept(self, dataset: Path, tmp_path: Path) -> None:
        assert refusal(dataset, tmp_path / "out", keep=0.0).reason is Reason.INVALID_ARGUMENT

    def test_uncertainty_needs_a_model(self, dataset: Path, tmp_path: Path) -> None:
        error = refusal(dataset, tmp_path / "out", strategy="uncertain")
        assert error.reason is Reason.INVALID_ARGUMENT
        assert "--model" in error.hint

    def test_what_is_no_model_is_refused(self, dataset: Path, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").write_bytes(b"no model")
        model = str(tmp_path / "model.onnx")
        error = refusal(dataset, tmp_path / "out", strategy="uncertain", model=model)
        assert error.reason is Reason.MODEL_INVALID

    def test_what_is_no_dataset_is_refused(self, tmp_path: Path) -> None:
        assert refusal(tmp_path, tmp_path / "out").reason is Reason.DATASET_INVALID

    def test_trials_without_features_are_refused(self, tmp_path: Path) -> None:
        place = written(tmp_path / "some" / "trials.parquet", [record(1, features=None)])
        error = refusal(place, tmp_path / "out")
        assert error.reason is Reason.DATASET_INVALID
        assert "--featurize" in error.message

    def test_features_of_another_release_are_refused(self, tmp_path: Path) -> None:
        place = written(tmp_path / "some" / "trials.parquet", [record(1)], feature_schema="0" * 16)
        error = refusal(place, tmp_path / "out")
        assert error.reason is Reason.DATASET_INVALID
        assert "0" * 16 in error.message

    def test_a_dataset_that_turns_out_damaged_leaves_nothing(
        self, dataset: Path, tmp_path: Path
    ) -> None:
        path = dataset / "devices.parquet"
        path.write_bytes(path.read_bytes()[:100])
        assert refusal(dataset, tmp_path / "out").reason is Reason.DATASET_INVALID


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[CostModel, Path]:
    """An untrained cost model, of which no two heads agree."""
    made = fitted(to_arrays(synthetic_rows(seed=1, tasks=1, per_task=30)))
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    export(made, path, "v7")
    return made, path


class TestModels:
    def test_the_spread_is_the_models_own(
        self, dataset: Path, model: tuple[CostModel, Path]
    ) -> None:
        made, path = model
        corpus = load_corpus(dataset)
        with torch.inference_mode():
            inputs = corpus.arrays.padded(np.arange(len(corpus)))
            _, wanted = made(*(torch.from_numpy(part) for part in inputs))
        found = model_spread(path, corpus)
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)
        assert np.ptp(found) > 0

    def test_what_a_model_is_least_sure_of_stays(
        self, dataset: Path, tmp_path: Path, model: tuple[CostModel, Path]
    ) -> None:
        pruned(dataset, tmp_path / "out", strategy="uncertain", model=str(model[1]))
        corpus = load_corpus(dataset)
        order = np.argsort(-model_spread(model[1], corpus))
        # Half of 20 are 10; two are drawn at random and up to three stand for their task.
        assert {corpus.trial_ids[row] for row in order[:5]} <= set(rows_by_id(tmp_path / "out"))
        assert "--model model.onnx" in (tmp_path / "out" / "README.md").read_text()

    def test_a_model_for_other_features_is_refused(
        self, dataset: Path, tmp_path: Path, model: tuple[CostModel, Path]
    ) -> None:
        import onnx

        other = onnx.load(model[1])
        for entry in other.metadata_props:
            if entry.key == "tunefleet.schema_digest":
                entry.value = "0" * 16
        onnx.save(other, tmp_path / "other.onnx")
        with pytest.raises(TuneFleetError, match="schema 0000000000000000") as raised:
            model_spread(tmp_path / "other.onnx", load_corpus(dataset))
        assert raised.value.reason is Reason.MODEL_INVALID


class TestCommand:
    def test_people_see_what_was_kept(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        assert run(["dataset", "prune", str(dataset), str(out), "--keep", "0.25"]) == 0
        shown = capsys.readouterr().out
        for told in (
            *("5 of 20 trials (25.0%)", "llvm znver4, 2 threads", "resnet50", "ok"),
            *("Written to", "trials.parquet"),
        ):
            assert told in shown

    def test_scripts_get_one_object(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        command = ["dataset", "prune", str(dataset), str(out), "--strategy", "random"]
        assert run([*command, "--format", "json"]) == 0
        printed = capsys.readouterr()
        told = json.loads(printed.out)
        assert (told["kept"]["trials"], told["before"]["trials"]) == (10, 20)
        assert told["output_dir"] == str(out)
        assert "reading trials" in printed.err

    def test_a_failure_ends_with_its_exit_code(
        self, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, missing = str(tmp_path / "out"), str(tmp_path / "missing")
        code = run(["dataset", "prune", str(dataset), out, "--strategy", "uncertain"])
        assert code == Reason.INVALID_ARGUMENT.value.exit_code
        told = capsys.readouterr().err
        assert "needs a cost model" in told
        assert "hint: Give one with --model" in told
        assert run(["dataset", "prune", missing, out]) == Reason.DATASET_INVALID.value.exit_code
        code = run(["dataset", "prune", str(dataset), out, "--model", missing])
        assert code == Reason.MODEL_INVALID.value.exit_code

    def test_help_names_every_strategy(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert dataset_prune.STRATEGIES.keys() == STRATEGIES.keys()
        assert run(["dataset", "prune", "--help"]) == 0
        shown = capsys.readouterr().out
        assert [name for name in STRATEGIES if f"{name}: " not in shown] == []

    def test_ctrl_c_leaves_nothing_behind(self, tmp_path: Path) -> None:
        arguments = ["dataset", "prune", str(SHIPPED), str(tmp_path / "out"), "--keep", "1"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tunefleet.cli", *arguments],
            env=os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not list(tmp_path.iterdir()):
            assert process.poll() is None, "it ended before it wrote anything"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == Reason.INTERRUPTED.value.exit_code
        assert list(tmp_path.iterdir()) == []


def test_a_real_dataset_can_be_cut_down(some_shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "third"
    result = pruned(some_shipped, out, keep=0.3, strategy="combined")
    corpus, whole = load_corpus(out), load_corpus(some_shipped)
    assert len(corpus) == result["kept"]["trials"] == round(0.3 * len(whole))
    assert set(corpus.workloads) == set(whole.workloads)
    assert set(corpus.targets) == set(whole.targets)
    numbers = {name: number for number, name in enumerate(whole.trial_ids)}
    rows = np.array([numbers[name] for name in corpus.trial_ids])
    for kept, there in zip(
        corpus.arrays.padded(np.arange(len(corpus))), whole.arrays.padded(rows), strict=True
    ):
        np.testing.assert_array_equal(kept, there)
    kept_s, there_s = corpus.arrays.log_latency, whole.arrays.log_latency[rows]
    np.testing.assert_array_equal(kept_s, there_s)
    fastest = np.full(len(whole.arrays.group_keys), np.inf)
    measured = np.flatnonzero(whole.measured())
    np.minimum.at(fastest, whole.arrays.group[measured], whole.arrays.log_latency[measured])
    assert np.isin(fastest[np.isfinite(fastest)], kept_s).all(), "a task lost its fastest trial"
