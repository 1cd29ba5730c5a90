"""What a design space says of its programs: what a model is fed, and what trials store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from agent.search.evolution import Program
from agent.search.executor import PoliteExecutor
from agent.search.space import DesignSpace
from tests.agent.search_fixtures import TARGET, Workload, matmul
from tunefleet.features import MAX_STORES
from tunefleet.leases import BASELINE_TRACE
from tunefleet.machine_lock import MachineLock
from tunefleet.schedules.row import schedule_row

SEEDS = range(1, 25)
WIDER_TARGET = TARGET.replace("x86-64-v3", "x86-64-v4")

Draw = Callable[[DesignSpace], list[Program]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def product(folder: Path) -> Workload:
    return matmul(folder, 16)


@pytest.fixture(scope="module")
def executor(folder: Path) -> Iterator[PoliteExecutor]:
    executor = PoliteExecutor(MachineLock(folder / "lock"), 2)
    yield executor
    executor.close()


@pytest.fixture
def space(product: Workload, executor: PoliteExecutor) -> Iterator[DesignSpace]:
    space = DesignSpace(product.text, TARGET)
    with space.work_on(executor):
        yield space


def rows_of(programs: Sequence[Program]) -> list[list[float]]:
    return [program.features[0].tolist() for program in programs]


def rows_written(space: DesignSpace, programs: Sequence[Program]) -> list[list[float]]:
    """What training makes of the trials."""
    texts = [text for text in space.write(programs) if text is not None]
    return [np.frombuffer(schedule_row(text), "<f4").tolist() for text in texts]


def sampled(space: DesignSpace) -> list[Program]:
    return space.sample(SEEDS)


def mutated(space: DesignSpace) -> list[Program]:
    return space.mutate(sampled(space), SEEDS)


def met_before(space: DesignSpace) -> list[Program]:
    mutated(space)
    return mutated(space)


def loaded(space: DesignSpace) -> list[Program]:
    return space.load([text for text in space.write(sampled(space)) if text is not None])


def baseline(space: DesignSpace) -> list[Program]:
    return [space.baseline()]


@pytest.mark.parametrize("draw", [sampled, mutated, met_before, loaded, baseline])
def test_a_models_first_row_is_that_of_the_trace_trials_store(
    space: DesignSpace, draw: Draw
) -> None:
    programs = draw(space)
    assert programs
    assert rows_of(programs) == rows_written(space, programs)


def test_a_schedule_from_another_target_has_the_row_of_its_postprocessing_here(
    space: DesignSpace, product: Workload, executor: PoliteExecutor
) -> None:
    elsewhere = DesignSpace(product.text, WIDER_TARGET)
    with elsewhere.work_on(executor):
        known = [text for text in elsewhere.write(sampled(elsewhere)) if text is not None]
    programs = space.load(known)
    assert programs
    assert rows_of(programs) == rows_written(space, programs)


def test_equal_programs_by_different_schedules_have_their_own_rows(
    folder: Path, executor: PoliteExecutor
) -> None:
    # Where loops are as short as that, annotations differ that nothing follows from.
    space = DesignSpace(matmul(folder, 3).text, TARGET)
    with space.work_on(executor):
        programs = [*space.sample(range(1, 41)), *space.sample(range(1, 41))]
        assert rows_of(programs) == rows_written(space, programs)
    rows = {(program.candidate, program.features[0].tobytes()) for program in programs}
    assert len(rows) > len({program.candidate for program in programs})


def test_a_trial_keeps_the_stores_alone(space: DesignSpace) -> None:
    for program in sampled(space):
        assert program.stores.tolist() == program.features[1:].tolist()
        assert 1 <= len(program.stores) <= MAX_STORES


def test_a_candidate_whose_trace_cannot_be_followed_is_left_out(
    space: DesignSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunefleet.schedules.trace.MAX_INSTRUCTIONS", 3)
    assert sampled(space) == []


def test_a_row_is_the_same_once_its_instructions_are_remembered(
    space: DesignSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.search.trace_rows._PARTS_KEPT", 7)
    programs = sampled(space)
    assert rows_of(programs) == rows_written(space, programs)


def test_the_unscheduled_program_has_the_row_of_an_empty_trace(space: DesignSpace) -> None:
    assert space.baseline().features[0].tobytes() == schedule_row(BASELINE_TRACE)
