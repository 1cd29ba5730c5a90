"""Trainings that are interrupted, or shared by several processes, come out the same."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from costmodel_rows import synthetic_rows

from coordinator.costmodel import train, training_state
from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.model import ModelConfig
from coordinator.costmodel.train import Material, TrainConfig, fit, score
from tunefleet.machine_lock import MachineLock

SMALL = TrainConfig(
    model=ModelConfig(width=16, hardware_width=8, head_width=8, blocks=1), threads=1, max_steps=60
)


class PulledPlugError(Exception):
    """Ends a training in its midst."""


@pytest.fixture(scope="module")
def arrays() -> RowArrays:
    return to_arrays(synthetic_rows(seed=5))


@pytest.fixture
def lock(tmp_path: Path) -> MachineLock:
    return MachineLock(tmp_path / "lock")


def interrupt(arrays: RowArrays, config: TrainConfig, state: Path, lock: MachineLock) -> None:
    def pull(share: float, _message: str) -> None:
        if share > 0.5:
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        fit(arrays, None, config, pull, lock, state_path=state)


@pytest.fixture(autouse=True)
def saved_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_SAVE_EVERY_S", 0.0)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(
    arrays: RowArrays, lock: MachineLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.npz"
    interrupt(arrays, SMALL, state, lock)
    loaded: list[int] = []
    load = training_state.TrainingState.load

    def watched(path: Path, key: str) -> training_state.TrainingState | None:
        found = load(path, key)
        loaded.append(found.step if found else 0)
        return found

    monkeypatch.setattr(training_state.TrainingState, "load", watched)
    resumed = fit(arrays, None, SMALL, lock=lock, state_path=state).model
    assert loaded[0] > 20
    assert not state.exists()
    straight = fit(arrays, None, SMALL, lock=lock).model
    assert (score(resumed, arrays) == score(straight, arrays)).all()


def test_the_state_of_another_training_is_not_taken_up(
    arrays: RowArrays, lock: MachineLock, tmp_path: Path
) -> None:
    state = tmp_path / "state.npz"
    interrupt(arrays, SMALL, state, lock)
    other = replace(SMALL, seed=3)
    resumed = fit(arrays, None, other, lock=lock, state_path=state).model
    straight = fit(arrays, None, other, lock=lock).model
    assert (score(resumed, arrays) == score(straight, arrays)).all()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", b"\x00" * 4096])
def test_a_damaged_state_is_no_obstacle(
    arrays: RowArrays, lock: MachineLock, tmp_path: Path, damage: bytes
) -> None:
    state = tmp_path / "state.npz"
    state.write_bytes(damage)
    brief = replace(SMALL, min_steps=2, max_steps=2)
    assert fit(arrays, None, brief, lock=lock, state_path=state).steps == 2


def test_fine_tuning_with_replay_remembers_more(arrays: RowArrays, lock: MachineLock) -> None:
    rows = np.flatnonzero(~arrays.held_out)
    few = rows[arrays.group[rows] == arrays.group[rows[0]]]
    old = rows[arrays.group[rows] != arrays.group[rows[0]]]
    first = fit(arrays, None, SMALL, lock=lock, material=Material(old)).model
    parent = Checkpoint.of(first, "first", "", len(old))
    config = replace(SMALL, learning_rate_fine_tuning=5e-3)

    def change(material: Material) -> float:
        tuned = fit(arrays, parent, config, lock=lock, material=material).model
        return float(np.abs(score(tuned, arrays)[old] - score(first, arrays)[old]).mean())

    assert change(Material(few, replay=old)) < change(Material(few))


def without_chance(config: TrainConfig) -> TrainConfig:
    """A short training that hides nothing: each process would hide something else."""
    model = replace(config.model, dropout=0.0)
    return replace(config, model=model, hardware_dropout=0.0, min_steps=12, max_steps=12)


_TOGETHER = """
import sys
from pathlib import Path
import numpy as np
sys.path[:0] = sys.argv[1:3]
from costmodel_rows import synthetic_rows
from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.team import join_team
from coordinator.costmodel.train import fit, score
from test_costmodel_resuming import SMALL, without_chance
from tunefleet.machine_lock import MachineLock
arrays = to_arrays(synthetic_rows(seed=5))
with join_team() as team:
    config = without_chance(SMALL)
    model = fit(arrays, None, config, lock=MachineLock(Path(sys.argv[3]) / "lock"), team=team).model
    np.save(Path(sys.argv[3]) / f"scores-{team.rank}.npy", score(model, arrays))
"""


@pytest.mark.timeout(600)
def test_two_processes_take_the_steps_of_one(
    arrays: RowArrays, lock: MachineLock, tmp_path: Path
) -> None:
    script = tmp_path / "together.py"
    script.write_text(_TOGETHER)
    here = Path(__file__).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"),
            *(str(script), str(here), str(here.parents[1]), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (np.load(tmp_path / f"scores-{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
    config = without_chance(SMALL)
    alone = score(fit(arrays, None, config, lock=lock).model, arrays)
    np.testing.assert_allclose(first, alone, atol=2e-3)
