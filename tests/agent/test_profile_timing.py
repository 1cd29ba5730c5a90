"""Timing micro-benchmarks, by a clock that the tests turn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.profile import timing
from agent.profile.timing import Figure, time_figures
from tunefleet.machine_lock import MachineLock


class Machine:
    """Needs ``seconds_per_round`` a round on two cores, times the next of ``slowdowns`` a call."""

    def __init__(
        self, seconds_per_round: float, slowdowns: Iterable[float] = (), cores: float = 2
    ) -> None:
        self.now_s = 0.0
        self._cores = cores
        self._seconds_per_round = seconds_per_round
        self._slowdowns = iter(slowdowns)

    def run(self, rounds: int) -> None:
        self.now_s += rounds * self._seconds_per_round * next(self._slowdowns, 1.0)

    def clock(self) -> float:
        return self.now_s

    def cpu_clock(self) -> float:
        return self.now_s * self._cores


def timed(machine: Machine, folder: Path) -> timing.Timed:
    figure = Figure(machine.run, 2, lambda seconds: 1 / seconds)
    return time_figures({"rate": figure}, MachineLock(folder), machine.clock, machine.cpu_clock)


@pytest.mark.parametrize("seconds_per_round", [1e-8, 1e-5, 1.0])
def test_a_figure_is_computed_from_seconds_a_round(
    seconds_per_round: float, tmp_path: Path
) -> None:
    values = timed(Machine(seconds_per_round), tmp_path).values
    assert values["rate"] == pytest.approx(1 / seconds_per_round)


def test_interruptions_do_not_count(tmp_path: Path) -> None:
    slowdowns = [1000.0, 1.0, 50.0] * 1000
    assert timed(Machine(1e-5, slowdowns), tmp_path).values["rate"] == pytest.approx(1e5)


@pytest.mark.parametrize("figure", [0.0, -1.0, math.inf, math.nan])
def test_an_implausible_figure_is_unknown(figure: float, tmp_path: Path) -> None:
    machine = Machine(1e-3)
    figures = {"rate": Figure(machine.run, 1, lambda _: figure)}
    assert time_figures(figures, MachineLock(tmp_path), machine.clock).values == {"rate": None}


def test_figures_of_a_machine_that_does_nothing_else_are_undisturbed(tmp_path: Path) -> None:
    assert timed(Machine(1e-3), tmp_path).undisturbed


def test_two_threads_that_had_to_share_a_core_are_disturbed(tmp_path: Path) -> None:
    assert not timed(Machine(1e-3, cores=1), tmp_path).undisturbed


def test_figures_taken_beside_other_work_of_ours_are_disturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "QUIET_TIMEOUT_S", 0.01)
    with MachineLock(tmp_path).busy():
        assert not timed(Machine(1e-3), tmp_path).undisturbed
