"""A dataset as arrays: the shipped records, read whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import write_dataset

from coordinator.dataset.reading import Refused
from coordinator.study.corpus import Corpus, load_corpus
from tunefleet.errors import Reason, TuneFleetError


def test_every_row_knows_its_workload_and_target(shipped: Corpus) -> None:
    for row in range(0, len(shipped), 997):
        workload, target, _ = shipped.arrays.group_keys[shipped.arrays.group[row]]
        assert shipped.workloads[shipped.workload[row]] == workload
        assert shipped.targets[shipped.target[row]] == target
    assert len(shipped.targets) == 3
    assert len(set(shipped.trial_ids)) == len(shipped)
    assert shipped.measured().mean() > 0.9


def test_networks_are_told_from_families(shipped: Corpus) -> None:
    assert "squeezenet" in shipped.networks
    assert "conv2d" not in shipped.networks
    assert all(shipped.sources), "a workload of no network and no family"


def test_rows_taken_are_the_rows_asked_for(shipped: Corpus) -> None:
    rows = np.array([7, 3, len(shipped) - 1])
    taken = shipped.take(rows)
    assert taken.trial_ids == tuple(shipped.trial_ids[i] for i in rows)
    for whole, part in zip(
        shipped.arrays.padded(rows), taken.arrays.padded(np.arange(3)), strict=True
    ):
        np.testing.assert_array_equal(whole, part)
    np.testing.assert_array_equal(taken.arrays.log_latency, shipped.arrays.log_latency[rows])


def test_a_trial_whose_trace_cannot_be_read_is_named_and_left_out(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "some", workloads=2, per_task=5)
    table = pq.read_table(folder / "trials.parquet")
    traces = table["trace"].to_pylist()
    traces[3] = "[[[1]],[]]"
    place = table.schema.get_field_index("trace")
    spoilt = table.set_column(
        place, table.schema.field(place), pa.array(traces, table["trace"].type)
    )
    pq.write_table(spoilt, folder / "trials.parquet")
    refused: list[Refused] = []
    corpus = load_corpus(folder, refused=refused.append)
    [bad] = refused
    assert bad.name == table["trial_id"][3].as_py()
    assert "trace" in bad.why
    assert len(corpus) == 9
    assert bad.name not in corpus.trial_ids


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuneFleetError) as raised:
        load_corpus(tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID
