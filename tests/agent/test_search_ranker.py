"""The cost model is checked before it ranks anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.search.ranker import ModelError, Ranker
from tests.agent.search_fixtures import HARDWARE, write_model
from tunefleet.features import MAX_ROWS


def test_padding_does_not_change_a_score(tmp_path: Path) -> None:
    ranker = Ranker(write_model(tmp_path / "m.onnx", feature=3, scale=2.0), threads=1)
    short = np.full((1, 172), 0.5, np.float32)
    long = np.full((4, 172), 0.25, np.float32)
    score, spread = ranker.rank([short, long], HARDWARE)
    assert score.tolist() == [1.0, 2.0]
    assert spread.tolist() == pytest.approx([0.1, 0.2])


def test_a_program_without_stores_is_ranked_by_its_schedules_row(tmp_path: Path) -> None:
    ranker = Ranker(write_model(tmp_path / "m.onnx", feature=3, scale=2.0), threads=1)
    score, _ = ranker.rank([np.full((1, 172), 0.25, np.float32)], HARDWARE)
    assert score.tolist() == [0.5]


def test_the_most_rows_a_program_may_have_are_ranked(tmp_path: Path) -> None:
    ranker = Ranker(write_model(tmp_path / "m.onnx", feature=3, scale=1.0), threads=1)
    score, _ = ranker.rank([np.ones((MAX_ROWS, 172), np.float32)], HARDWARE)
    assert score.tolist() == [33.0]


def test_a_score_that_is_no_number_ranks_last(tmp_path: Path) -> None:
    ranker = Ranker(write_model(tmp_path / "m.onnx", feature=3), threads=1)
    score, spread = ranker.rank([np.full((1, 172), np.nan, np.float32)], HARDWARE)
    assert score.tolist() == [-np.inf]
    assert spread.tolist() == [0.0]


def test_a_model_that_computes_other_scores_here_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", feature=3, golden_error=2e-4)
    with pytest.raises(ModelError, match=r"differ here by up to 0\.0002"):
        Ranker(path, threads=1)


def test_a_model_within_the_tolerance_is_accepted(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", feature=3, golden_error=5e-5)
    assert Ranker(path, threads=1).version == "stand-in"


def test_golden_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", feature=3, golden_error=float("nan"))
    with pytest.raises(ModelError, match="differ"):
        Ranker(path, threads=1)


def test_a_model_for_another_feature_schema_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", feature=3, digest="0123456789abcdef")
    with pytest.raises(ModelError, match="feature schema 0123456789abcdef"):
        Ranker(path, threads=1)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="cannot load"):
        Ranker(path, threads=1)
