"""Learning from real measurements."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.metrics import pairwise_accuracy
from coordinator.costmodel.train import TrainConfig, fit, score
from coordinator.study.corpus import load_corpus
from tunefleet.machine_lock import MachineLock


@pytest.fixture(scope="module")
def arrays(some_shipped: Path) -> RowArrays:
    return load_corpus(some_shipped).arrays


def test_it_ranks_real_programs_it_was_not_trained_on(arrays: RowArrays, tmp_path: Path) -> None:
    config = TrainConfig(threads=1, max_steps=120)
    model = fit(arrays, None, config, lock=MachineLock(tmp_path)).model
    rows = arrays.held_out
    found = pairwise_accuracy(
        score(model, arrays)[rows], arrays.log_latency[rows], arrays.group[rows]
    )
    assert found.pairs > 500
    # Guessing gives 0.50 with a standard error of 0.02 on these lists.
    assert found.by_records > 0.66
