"""The average of weights over a training takes the last weights' place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from costmodel_rows import synthetic_rows

from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.averaging import Average
from coordinator.costmodel.model import ModelConfig
from coordinator.costmodel.train import TrainConfig, fit, score
from tunefleet.machine_lock import MachineLock

SMALL = TrainConfig(
    model=ModelConfig(width=16, hardware_width=8, head_width=8, blocks=1),
    threads=1,
    min_steps=30,
    max_steps=30,
)


class One(torch.nn.Module):
    """One weight, and a constant that no training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([8.0]))
        self.register_buffer("constant", torch.tensor([3.0]))

    def move(self, value: float) -> None:
        with torch.no_grad():
            self.weight.fill_(value)


def averaged(decay: float, *values: float) -> float:
    model = One()
    average = Average(model, decay)
    for step, value in enumerate(values):
        model.move(value)
        average.update(step)
    assert model.weight.item() == values[-1]
    average.apply()
    assert model.get_buffer("constant").item() == 3.0
    return model.weight.item()


def test_without_decay_the_last_weights_are_the_model() -> None:
    assert averaged(0.0, 1.0, 2.0, 5.0) == 5.0


def test_weights_that_stand_still_are_their_own_average() -> None:
    assert averaged(0.998, *[2.5] * 3000) == pytest.approx(2.5, abs=1e-3)


def test_the_average_lies_among_the_last_weights() -> None:
    swinging = [1.0 + (-1.0) ** step for step in range(4000)]
    assert averaged(0.99, *swinging) == pytest.approx(1.0, abs=0.01)


def test_a_short_training_forgets_where_it_began() -> None:
    assert averaged(0.998, *[0.0] * 30) < 0.01 * 8.0


@pytest.fixture(scope="module")
def arrays() -> RowArrays:
    return to_arrays(synthetic_rows(seed=5))


def test_training_gives_the_average(arrays: RowArrays, lock: MachineLock) -> None:
    last = fit(arrays, None, replace(SMALL, averaging=0.0), lock=lock).model
    averaged = fit(arrays, None, SMALL, lock=lock).model
    assert np.abs(score(last, arrays) - score(averaged, arrays)).max() > 1e-4


@pytest.fixture
def lock(tmp_path_factory: pytest.TempPathFactory) -> MachineLock:
    return MachineLock(tmp_path_factory.mktemp("lock"))
