from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from costmodel_rows import fitted, hardware, synthetic_rows, tile_trace
from torch import Tensor

from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.loss import LossConfig, RankingLists, latency_loss, ranking_loss
from coordinator.costmodel.model import CostModel
from tunefleet.features import HARDWARE_FEATURES, MAX_ROWS, PROGRAM_FEATURES_PER_STORE

ROWS = 40


def programs() -> list[TrainingRow]:
    made = synthetic_rows(seed=1, tasks=2, per_task=ROWS // 2)
    return [replace(row, trace=tile_trace(1 + n % 16)) for n, row in enumerate(made)]


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    arrays = to_arrays(programs())
    features, mask, device = (torch.from_numpy(part) for part in arrays.padded(np.arange(ROWS)))
    return features, mask, device


@pytest.fixture(scope="module")
def model() -> CostModel:
    return fitted(to_arrays(programs()))


def one_device(**changes: float) -> Tensor:
    return torch.tensor([hardware(**changes)] * ROWS)


@torch.inference_mode()
def test_padding_changes_no_score(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, device = inputs
    longer = torch.zeros(ROWS, MAX_ROWS, PROGRAM_FEATURES_PER_STORE)
    longer[:, : features.shape[1]] = features
    longer_mask = torch.zeros(ROWS, MAX_ROWS)
    longer_mask[:, : features.shape[1]] = mask
    torch.testing.assert_close(
        model(longer, longer_mask, device), model(*inputs), atol=1e-5, rtol=0
    )


@torch.inference_mode()
def test_what_stands_in_padding_changes_no_score(
    model: CostModel, inputs: tuple[Tensor, ...]
) -> None:
    features, mask, device = inputs
    filled = torch.where(mask.unsqueeze(-1) > 0, features, torch.full_like(features, 12.0))
    torch.testing.assert_close(model(filled, mask, device), model(*inputs), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_a_store_changes_the_score(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, device = inputs
    fewer = mask.clone()
    fewer[:, 2:] = 0.0
    cut = mask.sum(dim=1) > 2
    difference = (model(features, fewer, device)[0] - model(*inputs)[0]).abs()
    assert (difference[cut] > 1e-4).all()


@torch.inference_mode()
def test_the_schedule_changes_the_score(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, device = inputs
    other = features.clone()
    other[:, 0] = features[:, 0].roll(1, dims=0)
    difference = (model(other, mask, device)[0] - model(*inputs)[0]).abs()
    assert (difference > 1e-4).sum() > 0.9 * ROWS


@torch.inference_mode()
def test_a_program_without_stores_has_a_score(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, device = inputs
    alone = torch.zeros_like(mask)
    alone[:, 0] = 1.0
    padded = model(features, alone, device)
    assert all(out.isfinite().all() for out in padded)
    cut = model(features[:, :1], alone[:, :1], device)
    torch.testing.assert_close(padded, cut, atol=1e-5, rtol=0)


def test_values_are_hidden_in_training_alone(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    with torch.inference_mode():
        assert torch.equal(model(*inputs)[0], model(*inputs)[0])
        model.train()
        hidden = model(*inputs)[0], model(*inputs)[0]
        model.eval()
    assert not torch.equal(*hidden)


@torch.inference_mode()
def test_rows_of_a_batch_do_not_influence_each_other(
    model: CostModel, inputs: tuple[Tensor, ...]
) -> None:
    alone = torch.cat([model(*(part[i : i + 1] for part in inputs))[0] for i in range(ROWS)])
    torch.testing.assert_close(alone, model(*inputs)[0], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_hardware_changes_the_order_of_a_tasks_programs(
    model: CostModel, inputs: tuple[Tensor, ...]
) -> None:
    features, mask, _ = inputs
    small = model(features, mask, one_device())[0]
    large = model(
        features, mask, one_device(target_simd_bits=512.0, target_cores=64.0, l2_bytes=2.0**24)
    )[0]
    assert small.argsort().tolist() != large.argsort().tolist()


@torch.inference_mode()
def test_unknown_hardware_gives_finite_scores(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, _ = inputs
    nothing_known = torch.full((ROWS, len(HARDWARE_FEATURES)), math.nan)
    assert all(out.isfinite().all() for out in model(features, mask, nothing_known))


@torch.inference_mode()
def test_an_unknown_value_is_not_the_mean(model: CostModel, inputs: tuple[Tensor, ...]) -> None:
    features, mask, _ = inputs
    known = model(features, mask, one_device())[0]
    unknown = model(features, mask, one_device(target_simd_bits=math.nan))[0]
    assert (known - unknown).abs().max() > 1e-4


@torch.inference_mode()
def test_spread_is_the_standard_deviation_of_the_heads(
    model: CostModel, inputs: tuple[Tensor, ...]
) -> None:
    heads = model.head_scores(*inputs)
    mean, spread = model(*inputs)
    torch.testing.assert_close(mean, heads.mean(dim=1))
    torch.testing.assert_close(spread, heads.std(dim=1, unbiased=False))


def lists(latency: list[float], noise: float = 0.0) -> RankingLists:
    size = len(latency)
    return RankingLists(
        log_latency=torch.tensor([latency]).log(),
        real=torch.ones(1, size, dtype=torch.bool),
        noise=torch.full((1, size), noise),
        weight=torch.ones(1, size),
        chosen=torch.ones(1, size, 1),
    )


def gradient(latency: list[float], noise: float = 0.0) -> list[float]:
    scores = torch.zeros(1, len(latency), 1, requires_grad=True)
    ranking_loss(scores, lists(latency, noise), LossConfig(magnitude=0.0)).backward()
    assert scores.grad is not None
    return [float(value) for value in scores.grad.flatten()]


def test_the_loss_lifts_the_faster_program() -> None:
    fast, slow = gradient([1.0, 2.0])
    assert fast < 0 < slow


def test_pairs_within_the_noise_teach_nothing() -> None:
    assert gradient([1.0, 1.1], noise=0.2) == [0.0, 0.0]


def test_a_failed_program_sinks_below_the_slowest() -> None:
    _, slowest, failed = gradient([1.0, 2.0, math.nan])
    assert failed > slowest


def test_two_failed_programs_are_not_compared() -> None:
    assert gradient([math.nan, math.nan]) == [0.0, 0.0]


def off(guess: list[float], latency: list[float], mean: float = 0.0, std: float = 1.0) -> Tensor:
    wanted = lists(latency)
    constants = torch.tensor(mean), torch.tensor(std)
    return latency_loss(torch.tensor([guess]), wanted, *constants)


def test_a_guess_in_standard_deviations_from_the_mean_that_is_right_costs_nothing() -> None:
    right = [(math.log(value) - 1.0) / 2.0 for value in (1.0, 5.0)]
    assert float(off(right, [1.0, 5.0], mean=1.0, std=2.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(off(right, [1.0, 50.0], mean=1.0, std=2.0)) > 0.1


def test_nobody_can_guess_a_failed_trials_latency_wrong() -> None:
    guess = torch.tensor([[1.0, 7.0]], requires_grad=True)
    wanted = lists([1.0, math.nan])
    latency_loss(guess, wanted, torch.tensor(0.0), torch.tensor(1.0)).backward()
    assert guess.grad is not None
    assert guess.grad[0, 0] > 0
    assert guess.grad[0, 1] == 0


def test_the_loss_of_lists_is_the_mean_of_their_parts() -> None:
    guesses, latencies = [1.0, 2.0, -1.0, 0.5], [3.0, math.nan, math.nan, 1.0]
    whole = off(guesses, latencies)
    first, second = off(guesses[:1], latencies[:1]), off(guesses[1:], latencies[1:])
    assert float(whole) == pytest.approx(float(first) / 4 + 3 * float(second) / 4)
