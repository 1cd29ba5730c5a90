from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from costmodel_rows import synthetic_rows, tile_trace

from coordinator.costmodel import dataset
from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.dataset import TrainingRow
from tunefleet.features import MAX_ROWS, MAX_STORES, PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Verdict


def test_rows_come_back_as_they_were_saved(tmp_path: Path) -> None:
    rows = synthetic_rows(seed=0, per_task=5)
    assert dataset.save(tmp_path / "rows", iter(rows)) == len(rows)
    loaded = dataset.load(tmp_path / "rows")
    # repr: NaN equals nothing, not even itself.
    assert [repr(row) for row in loaded] == [repr(row) for row in rows]
    assert [row.features for row in loaded] == [row.features for row in rows]


def test_no_rows_make_a_readable_file(tmp_path: Path) -> None:
    dataset.save(tmp_path / "rows", [])
    assert dataset.load(tmp_path / "rows") == []


@pytest.mark.parametrize("kept", [0, 5, 100, 3000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "rows"
    dataset.save(path, synthetic_rows(seed=0, per_task=5))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"ends early|not where it should be"):
        dataset.load(path)


@pytest.mark.parametrize("position", [3, 10, 40, 2000, -3, -15])
def test_a_changed_byte_is_noticed(tmp_path: Path, position: int) -> None:
    path = tmp_path / "rows"
    dataset.save(path, synthetic_rows(seed=0, per_task=5))
    data = bytearray(path.read_bytes())
    data[position] ^= 0x11
    path.write_bytes(data)
    with pytest.raises(ValueError, match="cannot read training rows"):
        dataset.load(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    dataset.save(path, synthetic_rows(seed=0, per_task=5))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match="not where it should be"):
        dataset.load(path)


def test_a_row_with_features_of_the_wrong_size_is_not_written(tmp_path: Path) -> None:
    row = replace(synthetic_rows(seed=0, per_task=1)[0], stores=9)
    with pytest.raises(ValueError, match="9 stores"):
        dataset.save(tmp_path / "rows", [row])
    assert not (tmp_path / "rows").exists()


def test_about_a_fifth_of_the_candidates_is_held_out() -> None:
    held_out = sum(dataset.is_held_out(f"{number * 7919:016x}") for number in range(1000))
    assert held_out == 200


def test_writing_rows_imports_neither_numpy_nor_torch() -> None:
    code = (
        "import sys, coordinator.costmodel.dataset\n"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lost_trials_are_left_out() -> None:
    rows = synthetic_rows(seed=0, tasks=1, per_task=6)
    rows[4] = replace(rows[4], verdict=Verdict.LOST, latency_s=None)
    assert len(to_arrays(rows)) == 5


def test_a_long_program_keeps_its_first_stores() -> None:
    features = np.arange(40 * PROGRAM_FEATURES_PER_STORE, dtype="<f4")
    row = replace(synthetic_rows(seed=0)[0], stores=40, features=features.tobytes())
    inputs, mask, _ = to_arrays([row]).padded(np.array([0]))
    assert mask.shape == (1, MAX_ROWS)
    assert (inputs[:, 1:].reshape(-1) == features[: MAX_STORES * PROGRAM_FEATURES_PER_STORE]).all()


def test_padding_keeps_each_programs_own_stores() -> None:
    rows = synthetic_rows(seed=3, tasks=2, per_task=10)
    arrays = to_arrays(rows)
    inputs, mask, _ = arrays.padded(np.arange(len(rows)))
    assert [int(n) for n in mask.sum(axis=1)] == [1 + row.stores for row in rows]
    assert [
        block[real > 0].astype("<f4").tobytes() for block, real in zip(inputs, mask, strict=True)
    ] == [row.schedule + row.features for row in rows]


def with_traces(number: int) -> list[TrainingRow]:
    """Rows of which the first has no stores."""
    rows = synthetic_rows(seed=3, tasks=2, per_task=number)
    rows[0] = replace(rows[0], stores=0, features=b"")
    return [replace(row, trace=tile_trace(1 + n)) for n, row in enumerate(rows)]


def test_traces_and_programs_without_stores_come_back(tmp_path: Path) -> None:
    rows = with_traces(5)
    dataset.save(tmp_path / "rows", rows)
    loaded = dataset.load(tmp_path / "rows")
    assert [row.trace for row in loaded] == [row.trace for row in rows]
    assert [row.schedule for row in loaded] == [row.schedule for row in rows]
    assert (loaded[0].stores, loaded[0].features) == (0, b"")


def test_a_row_whose_trace_cannot_be_read_is_left_out() -> None:
    rows = with_traces(5)
    rows[3] = replace(rows[3], trace="[[no trace")
    arrays = to_arrays(rows)
    assert len(arrays) == len(rows) - 1
    kept = [int(row.candidate, 16) for row in rows if row is not rows[3]]
    assert arrays.candidate.tolist() == kept


def test_schedules_and_stores_can_be_looked_at_apart() -> None:
    rows = with_traces(5)
    arrays = to_arrays(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    for taken, wanted in ((arrays, rows), (arrays.take(order), [rows[n] for n in order])):
        stores, schedules = taken.without_schedules(), taken.schedules_alone()
        assert stores.stores.tolist() == [row.stores for row in wanted]
        assert schedules.stores.tolist() == [1] * len(rows)
        assert not stores.scheduled
        assert not schedules.scheduled
        for number, row in enumerate(wanted):
            begin = stores.first_store[number]
            found = stores.features[begin : begin + row.stores]
            assert found.astype("<f4").tobytes() == row.features
            begin = schedules.first_store[number]
            assert schedules.features[begin].astype("<f4").tobytes() == row.schedule


def test_without_schedules_there_is_nothing_to_take_away() -> None:
    stores = to_arrays(with_traces(5)).without_schedules()
    assert stores.without_schedules() is stores
    with pytest.raises(ValueError, match="no row of their schedule"):
        stores.schedules_alone()


def test_tasks_on_different_targets_are_different_lists() -> None:
    rows = synthetic_rows(seed=0, tasks=1, per_task=4)
    other = [replace(row, target='{"kind":"llvm","mcpu":"znver4"}') for row in rows]
    assert to_arrays(rows + other).group.tolist() == [0] * 4 + [1] * 4


def test_failed_trials_have_no_latency() -> None:
    arrays = to_arrays(synthetic_rows(seed=0, tasks=1, per_task=6, failures=2))
    assert [math.isnan(value) for value in arrays.log_latency] == [True, True] + [False] * 4


def test_features_that_are_not_finite_are_refused() -> None:
    row = synthetic_rows(seed=0)[0]
    features = np.full(row.stores * PROGRAM_FEATURES_PER_STORE, np.inf, "<f4")
    with pytest.raises(ValueError, match="not finite"):
        to_arrays([replace(row, features=features.tobytes())])
