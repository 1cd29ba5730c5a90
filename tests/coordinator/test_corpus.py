"""A dataset as arrays: the shipped records, read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coordinator.study.corpus import Corpus, load_corpus
from tunefleet.errors import Reason, TuneFleetError

SHIPPED = Path(__file__).parents[2] / "datasets" / "zen4-one-core"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(SHIPPED)


def test_every_row_knows_its_workload_and_target(corpus: Corpus) -> None:
    for row in range(0, len(corpus), 997):
        workload, target, _ = corpus.arrays.group_keys[corpus.arrays.group[row]]
        assert corpus.workloads[corpus.workload[row]] == workload
        assert corpus.targets[corpus.target[row]] == target
    assert len(corpus.targets) == 3
    assert len(set(corpus.trial_ids)) == len(corpus)
    assert corpus.measured().mean() > 0.9


def test_networks_are_told_from_families(corpus: Corpus) -> None:
    assert "squeezenet" in corpus.networks
    assert "conv2d" not in corpus.networks
    assert all(corpus.sources), "a workload of no network and no family"


def test_rows_taken_are_the_rows_asked_for(corpus: Corpus) -> None:
    rows = np.array([7, 3, len(corpus) - 1])
    taken = corpus.take(rows)
    assert taken.trial_ids == tuple(corpus.trial_ids[i] for i in rows)
    for whole, part in zip(
        corpus.arrays.padded(rows), taken.arrays.padded(np.arange(3)), strict=True
    ):
        np.testing.assert_array_equal(whole, part)
    np.testing.assert_array_equal(taken.arrays.log_latency, corpus.arrays.log_latency[rows])


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError) as raised:
        load_corpus(tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID
