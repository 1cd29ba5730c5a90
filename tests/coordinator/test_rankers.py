"""Models behind one interface: each learns what is there, and looks at nothing it must not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from costmodel_rows import synthetic_rows

from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.metrics import pairwise_accuracy
from coordinator.costmodel.model import ModelConfig
from coordinator.costmodel.train import TrainConfig
from coordinator.study.rankers.attention import AttentionRanker
from coordinator.study.rankers.base import Effort, RandomRanker, Ranker
from coordinator.study.rankers.mlp import MlpRanker
from coordinator.study.rankers.pooled import TreeConfig, TreeRanker, pool
from coordinator.study.rankers.wrappers import Joined, constant_hardware, shuffled_hardware

SMALL = TrainConfig(
    model=ModelConfig(width=32, hardware_width=8, head_width=16), threads=1, max_steps=80
)
MAKERS = {
    "attention": lambda: AttentionRanker(SMALL),
    "xgb_hw": lambda: TreeRanker(True, 0, TreeConfig(rounds=40, threads=1)),
    "xgb": lambda: TreeRanker(False, 0, TreeConfig(rounds=40, threads=1)),
    "mlp": lambda: MlpRanker(0, Effort(1, 150)),
}


@pytest.fixture(scope="module")
def arrays() -> RowArrays:
    slow = synthetic_rows(seed=5, tasks=3)
    fast = synthetic_rows(seed=6, tasks=3, l1d_bytes=65536.0, target_cores=8.0)
    return to_arrays([*slow, *(replace(row, device_fingerprint="e" * 16) for row in fast)])


@pytest.fixture(scope="module")
def halves(
    arrays: RowArrays,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    rows = np.random.default_rng(0).permutation(len(arrays))
    return np.sort(rows[::2]), np.sort(rows[1::2])


def accuracy(ranker: Ranker, arrays: RowArrays, rows: np.ndarray) -> float:  # type: ignore[type-arg]
    scores = ranker.score(arrays, rows)
    return pairwise_accuracy(scores, arrays.log_latency[rows], arrays.group[rows]).by_records


@pytest.mark.parametrize("name", MAKERS)
def test_it_learns_to_order_trials_it_has_not_seen(
    name: str,
    arrays: RowArrays,
    halves: tuple[np.ndarray, np.ndarray],  # type: ignore[type-arg]
) -> None:
    ranker = MAKERS[name]()
    assert ranker.name == name
    ranker.fit(arrays, halves[0])
    assert accuracy(ranker, arrays, halves[1]) > 0.7


@pytest.mark.parametrize("name", MAKERS)
def test_other_rows_latencies_change_nothing(
    name: str,
    arrays: RowArrays,
    halves: tuple[np.ndarray, np.ndarray],  # type: ignore[type-arg]
) -> None:
    train, test = halves
    spoilt = arrays.log_latency.copy()
    spoilt[test] = np.random.default_rng(1).normal(size=len(test))
    honest, tempted = MAKERS[name](), MAKERS[name]()
    honest.fit(arrays, train)
    tempted.fit(replace(arrays, log_latency=spoilt), train)
    np.testing.assert_array_equal(honest.score(arrays, test), tempted.score(arrays, test))


def test_guessing_is_guessing_and_repeatable(arrays: RowArrays) -> None:
    rows = np.arange(len(arrays))
    first, second = RandomRanker(1), RandomRanker(2)
    assert accuracy(first, arrays, rows) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(first.score(arrays, rows)[7:9], first.score(arrays, rows[7:9]))
    assert (first.score(arrays, rows) != second.score(arrays, rows)).any()


def test_pooling_is_over_a_programs_own_stores(arrays: RowArrays) -> None:
    rows = np.array([5, 2, 17])
    pooled = pool(arrays, rows)
    for row, values in zip(rows, pooled, strict=True):
        begin, count = arrays.first_store[row], arrays.stores[row]
        schedule, *stores = arrays.features[begin : begin + count]
        expected = np.concatenate([schedule, np.sum(stores, axis=0), np.max(stores, axis=0)])
        np.testing.assert_allclose(values, expected, rtol=1e-5)
    alone = pool(arrays.without_schedules(), rows)
    np.testing.assert_array_equal(alone, pooled[:, arrays.features.shape[1] :])


def test_a_program_without_stores_can_be_ranked() -> None:
    rows = synthetic_rows(seed=5, tasks=2, per_task=20)
    rows[0] = replace(rows[0], stores=0, features=b"")
    arrays = to_arrays(rows)
    some = np.arange(len(rows))
    assert not pool(arrays, some)[0, arrays.features.shape[1] :].any()
    for ranker in (
        TreeRanker(False, 0, TreeConfig(rounds=2, threads=1)),
        MlpRanker(0, Effort(1, 2)),
    ):
        ranker.fit(arrays, some)
        assert np.isfinite(ranker.score(arrays, some)).all()


def test_rows_beside_are_learned_from_too(arrays: RowArrays) -> None:
    class Noting(RandomRanker):
        def fit(self, arrays: RowArrays, rows: np.ndarray, progress: object = None) -> None:  # type: ignore[type-arg]
            self.seen = rows

    noting = Noting()
    Joined(noting, np.array([3, 1])).fit(arrays, np.array([2, 3]))
    assert noting.seen.tolist() == [1, 2, 3]


def test_shuffled_hardware_stays_one_vector_a_task(arrays: RowArrays) -> None:
    shuffled = shuffled_hardware(arrays, seed=1)
    for group in np.unique(arrays.group):
        vectors = shuffled.hardware[arrays.group == group]
        np.testing.assert_array_equal(vectors, np.broadcast_to(vectors[0], vectors.shape))
    assert (np.nan_to_num(shuffled.hardware) != np.nan_to_num(arrays.hardware)).any()
    same = np.nan_to_num(constant_hardware(arrays).hardware)
    assert (same == same[0]).all()
