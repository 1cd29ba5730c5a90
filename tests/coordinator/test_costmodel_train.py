from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from costmodel_rows import synthetic_rows, tile_trace

from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.metrics import PairwiseAccuracy, pairwise_accuracy
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.promotion import MIN_PAIRS, decide
from coordinator.costmodel.sampling import epoch_batches, head_choice
from coordinator.costmodel.train import TrainConfig, TrainedModel, fit, score
from coordinator.costmodel.version import outgrown
from tunefleet.machine_lock import MachineLock

SMALL = TrainConfig(
    model=ModelConfig(width=32, hardware_width=8, head_width=16), threads=1, max_steps=60
)


@pytest.fixture(scope="module")
def arrays() -> RowArrays:
    return to_arrays(synthetic_rows(seed=5))


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> MachineLock:
    return MachineLock(tmp_path_factory.mktemp("lock"))


@pytest.fixture(scope="module")
def trained(arrays: RowArrays, lock: MachineLock) -> TrainedModel:
    return fit(arrays, None, SMALL, lock=lock)


def held_out_accuracy(model: CostModel, arrays: RowArrays) -> float:
    rows = arrays.held_out
    scores = score(model, arrays)[rows]
    return pairwise_accuracy(scores, arrays.log_latency[rows], arrays.group[rows]).by_records


def test_it_learns_to_rank_programs_it_has_not_seen(
    trained: TrainedModel, arrays: RowArrays
) -> None:
    assert held_out_accuracy(trained.model, arrays) > 0.75


def test_it_learns_from_traces_what_no_store_tells(lock: MachineLock) -> None:
    rng = np.random.default_rng(7)
    rows = []
    for row in synthetic_rows(seed=8, failures=0):
        factors = [int(2 ** rng.integers(0, 7)) for _ in range(2)]
        latency = 1e-3 * (factors[0] / factors[1]) ** 0.5
        rows.append(replace(row, trace=tile_trace(*factors), latency_s=latency))
    arrays = to_arrays(rows)
    seeing = fit(arrays, None, SMALL, lock=lock).model
    assert held_out_accuracy(seeing, arrays) > 0.8
    stores = arrays.without_schedules()
    config = replace(SMALL, model=replace(SMALL.model, scheduled=False))
    blind = fit(stores, None, config, lock=lock).model
    assert held_out_accuracy(blind, stores) < 0.6


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_model_learns_from_what_it_is_for(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock, scheduled: bool
) -> None:
    shown = arrays.without_schedules() if scheduled else arrays
    config = replace(SMALL, model=replace(SMALL.model, scheduled=scheduled))
    with pytest.raises(ValueError, match="row of the schedule"):
        fit(shown, None, config, lock=lock)
    parent = Checkpoint.of(trained.model, "v1", "", trained.rows_normalised)
    with pytest.raises(ValueError, match="row of the schedule"):
        fit(arrays.without_schedules(), parent, SMALL, lock=lock)


def test_programs_without_stores_are_learned_from(lock: MachineLock) -> None:
    made = synthetic_rows(seed=8, tasks=2, per_task=30)
    arrays = to_arrays(
        replace(row, stores=0, features=b"", trace=tile_trace(1 + n)) for n, row in enumerate(made)
    )
    brief = replace(SMALL, min_steps=2, max_steps=2)
    assert np.isfinite(score(fit(arrays, None, brief, lock=lock).model, arrays)).all()


def test_guessing_latencies_changes_what_is_learned(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    ranking_alone = fit(arrays, None, replace(SMALL, latency_weight=0.0), lock=lock).model
    assert (score(ranking_alone, arrays) != score(trained.model, arrays)).any()
    rows = np.flatnonzero(~np.isnan(arrays.log_latency))
    inputs = (torch.from_numpy(part) for part in arrays.padded(rows))
    with torch.inference_mode():
        guess = trained.model.log_latency(trained.model.embed(*inputs)).numpy()
    assert np.corrcoef(guess, arrays.log_latency[rows])[0, 1] > 0.5


def test_candidates_that_failed_score_below_the_others(
    arrays: RowArrays, lock: MachineLock
) -> None:
    # Here, and only here, failures can be told by a feature.
    failed = np.isnan(arrays.log_latency)
    features = arrays.features.copy()
    features[np.repeat(failed, arrays.stores), 60] += 12.0
    marked = replace(arrays, features=features)
    model = fit(marked, None, SMALL, lock=lock).model
    scores = score(model, marked)
    unseen = marked.held_out
    assert scores[failed & ~unseen].mean() < np.quantile(scores[~failed], 0.1)


def test_the_same_seed_gives_the_same_model(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    again = fit(arrays, None, SMALL, lock=lock).model
    assert (score(again, arrays) == score(trained.model, arrays)).all()


def test_another_seed_gives_another_model(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    other = fit(arrays, None, replace(SMALL, seed=1), lock=lock).model
    assert (score(other, arrays) != score(trained.model, arrays)).any()


def test_held_out_rows_influence_nothing(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    changed = replace(
        arrays, log_latency=np.where(arrays.held_out, -arrays.log_latency, arrays.log_latency)
    )
    again = fit(changed, None, SMALL, lock=lock).model
    assert (score(again, arrays) == score(trained.model, arrays)).all()


def test_fine_tuning_starts_from_the_parents_scores(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    parent = Checkpoint.of(trained.model, "v1", "", trained.rows_normalised)
    still = replace(SMALL, learning_rate_fine_tuning=0.0, seed=9)
    child = fit(arrays, parent, still, lock=lock)
    assert (score(child.model, arrays) == score(trained.model, arrays)).all()


def test_fine_tuning_keeps_the_parents_normalisation(
    trained: TrainedModel, arrays: RowArrays, lock: MachineLock
) -> None:
    parent = Checkpoint.of(trained.model, "v1", "", trained.rows_normalised)
    shifted = replace(arrays, features=arrays.features + 3.0)
    child = fit(shifted, parent, SMALL, lock=lock)
    kept = trained.model.normaliser.state_dict()
    for name, value in child.model.normaliser.state_dict().items():
        assert (value == kept[name]).all()
    assert (score(child.model, arrays) != score(trained.model, arrays)).any()


def test_heads_disagree_more_about_programs_unlike_those_seen(
    trained: TrainedModel, arrays: RowArrays
) -> None:
    features, mask, hardware = (torch.from_numpy(p) for p in arrays.padded(np.arange(len(arrays))))
    with torch.inference_mode():
        seen = trained.model(features, mask, hardware)[1]
        unlike = trained.model(features + 9.0 * torch.randn_like(features), mask, hardware)[1]
    assert seen.min() > 0
    assert unlike.mean() > seen.mean()


def test_a_parent_is_outgrown_when_the_data_has_doubled(trained: TrainedModel) -> None:
    parent = Checkpoint.of(trained.model, "v1", "", rows_normalised=100)
    assert not outgrown(parent, 199)
    assert outgrown(parent, 200)


def test_without_two_rows_of_a_task_there_is_nothing_to_learn(lock: MachineLock) -> None:
    with pytest.raises(ValueError, match="nothing to learn from"):
        fit(to_arrays(synthetic_rows(seed=0, tasks=3, per_task=1)), None, SMALL, lock=lock)


def test_a_checkpoint_gives_the_same_scores(
    trained: TrainedModel, arrays: RowArrays, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.npz"
    Checkpoint.of(trained.model, "v1", "", trained.rows_normalised).save(path)
    loaded = Checkpoint.load(path)
    assert (loaded.version, loaded.rows_normalised) == ("v1", trained.rows_normalised)
    assert (score(loaded.build(), arrays) == score(trained.model, arrays)).all()


def test_a_damaged_checkpoint_is_refused(trained: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    Checkpoint.of(trained.model, "v1", "", 1).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot use the checkpoint"):
        Checkpoint.load(path)


def test_weights_of_another_network_are_refused(trained: TrainedModel) -> None:
    checkpoint = Checkpoint.of(trained.model, "v1", "", 1)
    with pytest.raises(ValueError, match="not those of this release's network"):
        replace(checkpoint, config=ModelConfig(width=48)).build()


def test_an_epoch_shows_each_row_once_within_its_task() -> None:
    groups = np.repeat(np.arange(3), [70, 5, 33])
    lengths = np.random.default_rng(1).integers(1, 30, len(groups))
    batches = list(epoch_batches(groups, lengths, np.random.default_rng(0), 32, 2))
    lists = [rows for batch in batches for rows in batch]
    assert sorted(np.concatenate(lists)) == list(range(108))
    assert all(len(set(groups[rows])) == 1 and len(rows) <= 32 for rows in lists)
    assert all(len(batch) <= 2 for batch in batches)


def test_lists_of_equal_length_stand_together_in_batches_that_are_mixed() -> None:
    groups = np.repeat(np.arange(120), 4)
    lengths = np.repeat(np.random.default_rng(1).permutation(120) + 1, 4)
    batches = list(epoch_batches(groups, lengths, np.random.default_rng(0), 4, 8))
    shown = np.concatenate([rows for batch in batches for rows in batch])
    assert sorted(shown) == list(range(480))
    longest = [max(int(lengths[rows].max()) for rows in batch) for batch in batches]
    padding = sum(
        top - int(lengths[rows].max())
        for top, batch in zip(longest, batches, strict=True)
        for rows in batch
    )
    assert padding < 120 * 8
    assert longest != sorted(longest)


def test_each_head_keeps_its_share_of_the_rows() -> None:
    candidates = np.arange(10_000, dtype=np.uint64) * np.uint64(7919)
    chosen = head_choice(candidates, heads=4, share=0.7)
    assert np.abs(chosen.mean(axis=0) - 0.7).max() < 0.02
    assert np.abs(np.corrcoef(chosen.T) - np.eye(4)).max() < 0.05
    assert (head_choice(candidates[:10], 4, 0.7) == chosen[:10]).all()


def accuracy(wrong: int, size: int = 20) -> PairwiseAccuracy:
    latency = np.arange(size, dtype=np.float64)
    scores = -latency
    scores[:wrong] = scores[:wrong][::-1]
    return pairwise_accuracy(scores, latency, np.zeros(size, np.int64))


def test_a_model_that_ranks_worse_is_not_promoted() -> None:
    decision = decide(accuracy(wrong=8), accuracy(wrong=4))
    assert not decision.promote
    assert "ranks worse" in decision.why


def test_a_model_that_ranks_better_is_promoted() -> None:
    assert decide(accuracy(wrong=4), accuracy(wrong=8)).promote


def test_a_tie_is_promoted() -> None:
    assert decide(accuracy(wrong=5), accuracy(wrong=5)).promote


def test_the_first_model_is_promoted_even_without_held_out_pairs() -> None:
    assert decide(accuracy(wrong=0, size=1), None).promote


def test_with_too_few_pairs_the_current_model_stays() -> None:
    few = accuracy(wrong=0, size=10)
    decision = decide(few, accuracy(wrong=9, size=10))
    assert few.pairs < MIN_PAIRS
    assert not decision.promote
    assert f"only {few.pairs} held-out pairs" in decision.why


def test_accuracies_on_different_pairs_are_not_compared() -> None:
    with pytest.raises(ValueError, match="cannot compare"):
        decide(accuracy(wrong=0, size=20), accuracy(wrong=0, size=21))


def test_training_rests_while_something_is_timed(arrays: RowArrays, tmp_path: Path) -> None:
    shares: list[float] = []
    finished = threading.Event()

    def train() -> None:
        fit(arrays, None, SMALL, lambda share, _: shares.append(share), MachineLock(tmp_path))
        finished.set()

    with MachineLock(tmp_path).quiet():
        training = threading.Thread(target=train)
        training.start()
        assert not finished.wait(3.0)
        resting = len(shares)
        assert not finished.wait(1.0)
        assert len(shares) == resting
    training.join(120)
    assert finished.is_set()
    assert len(shares) > resting
