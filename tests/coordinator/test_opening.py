"""Whatever is a dataset is recognised by what lies there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_folders import write_dataset
from tenset_lines import write_tenset

from coordinator.costmodel.feature_sets import STEPS, STORES
from coordinator.dataset.tenset import MAX_NAMED
from coordinator.study.corpus import load_corpus
from coordinator.study.opening import PER_TASK, open_corpus
from coordinator.study.step_corpus import step_arrays
from tunefleet.errors import Reason, TuneFleetError


@pytest.fixture(scope="module")
def tenset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tenset(
        tmp_path_factory.mktemp("tenset") / "dataset", tasks=4, broken=["{", '{"i": []}']
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "some")


@pytest.mark.parametrize(
    ("inside", "tasks"),
    [
        ("", 8),
        ("measure_records", 8),
        ("measure_records/e5-2673", 4),
        ("measure_records/e5-2673/([0123456789abcdef0123456789abcdef,2],llvm).json", 1),
    ],
)
def test_tensets_files_are_taken_wherever_one_points(tenset: Path, inside: str, tasks: int) -> None:
    opened = open_corpus(tenset / inside)
    assert opened.corpus.features is STEPS
    assert opened.sampled
    assert len(opened.corpus.arrays.group_keys) == tasks
    assert len(opened.corpus) == 15 * tasks
    assert "net_2" in opened.corpus.networks


def test_what_is_broken_is_counted_and_named(tenset: Path) -> None:
    unusable = open_corpus(tenset).unusable
    file = "measure_records/platinum-8272/([0123456789abcdef0123456789abcdef,0],llvm).json"
    assert unusable.count == 2
    assert [one["where"] for one in unusable.named] == [f"{file}, line {n}" for n in (16, 17)]
    assert "no record" in unusable.named[1]["why"]
    assert open_corpus(tenset / "measure_records" / "e5-2673").unusable.count == 0


def test_a_sample_of_each_task_is_as_large_as_asked(tenset: Path) -> None:
    opened = open_corpus(tenset, per_task=3)
    assert np.bincount(opened.corpus.arrays.group).tolist() == [3] * 8
    assert "24 of 122 lines, at most 3 of each of 8 tasks" in opened.notes[0]
    assert f"at most {PER_TASK} of each" in open_corpus(tenset).about.description


def test_a_dataset_of_ours_has_stores_unless_steps_are_wanted(ours: Path) -> None:
    stores, steps = open_corpus(ours), open_corpus(ours, STEPS)
    assert (stores.corpus.features, steps.corpus.features) == (STORES, STEPS)
    assert stores.corpus.trial_ids == steps.corpus.trial_ids == load_corpus(ours).trial_ids
    assert stores.corpus.digest() == steps.corpus.digest()
    expected = step_arrays(ours, stores.corpus)
    for name in ("features", "first_store", "stores", "hardware", "log_latency", "group"):
        np.testing.assert_array_equal(
            getattr(steps.corpus.arrays, name), getattr(expected, name), err_msg=name
        )
    assert stores.about.licence == steps.about.licence == "CC-BY-4.0"


def test_steps_need_no_features(tmp_path: Path) -> None:
    place = write_dataset(tmp_path / "bare", without_features=True)
    assert len(open_corpus(place, STEPS).corpus) == 120
    with pytest.raises(TuneFleetError, match="--featurize"):
        open_corpus(place)


def test_traces_that_cannot_be_read_are_named(
    ours: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("model_folders.trace", lambda n: "[[7],[]]" if n == 3 else "[[],[]]")
    opened = open_corpus(write_dataset(tmp_path / "some", workloads=MAX_NAMED + 5), STEPS)
    assert len(opened.corpus) == 19 * (MAX_NAMED + 5)
    assert (opened.unusable.count, len(opened.unusable.named)) == (MAX_NAMED + 5, MAX_NAMED)
    assert "cannot be read as schedule steps" in opened.unusable.named[0]["why"]


def refusal(place: Path, *arguments: object, **options: object) -> TuneFleetError:
    with pytest.raises(TuneFleetError) as raised:
        open_corpus(place, *arguments, **options)  # type: ignore[arg-type]
    return raised.value


def test_stores_of_tensets_records_are_refused(tenset: Path) -> None:
    error = refusal(tenset, STORES)
    assert error.reason is Reason.INVALID_ARGUMENT
    assert "cannot lower" in error.message
    assert "--features steps" in error.hint


def test_a_sample_of_what_is_read_whole_is_refused(ours: Path) -> None:
    error = refusal(ours, per_task=5)
    assert error.reason is Reason.INVALID_ARGUMENT
    assert "dataset prune" in error.hint


def test_a_metaschedule_database_is_not_taken_for_tensets(tmp_path: Path) -> None:
    for name in ("database_workload.json", "database_tuning_record.json"):
        (tmp_path / name).write_text("[]\n")
    error = refusal(tmp_path)
    assert error.reason is Reason.DATASET_INVALID
    assert "--kind" in error.hint


def test_nothing_is_no_dataset(tmp_path: Path) -> None:
    assert refusal(tmp_path).reason is Reason.DATASET_INVALID
    (tmp_path / "a.json").write_text("{}\n")
    error = refusal(tmp_path)
    assert error.reason is Reason.DATASET_INVALID
    assert "a.json, line 1" in error.message
