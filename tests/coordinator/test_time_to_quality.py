"""The time-to-quality bench: what a run knew when, when it caught up, what is left out."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from coordinator.dataset.reading import read_workloads
from coordinator.dataset.schema import WORKLOADS_FILE
from coordinator.study.opening import open_corpus
from scripts.benches.quality_base import leave_out
from scripts.benches.quality_compare import compare_times
from scripts.benches.quality_curve import Event, Match, Run, first_match, seconds_to_within
from scripts.benches.quality_ours import phase_shares

FIRST = Event(1.0, "conv", 4.0, "first")
FAILED = Event(2.0, "dense", None, "failed")
DENSE = Event(3.0, "dense", 1.0, "dense")
WORSE = Event(4.0, "conv", 5.0, "worse")
BETTER = Event(5.0, "conv", 2.0, "better")


@pytest.fixture
def run() -> Run:
    """Two calls of a convolution and one of a dense layer, five trials."""
    return Run(6.0, {"conv": 2, "dense": 1}, (FIRST, FAILED, DENSE, WORSE, BETTER))


def test_the_best_by_a_second_is_what_had_been_measured_then(run: Run) -> None:
    assert run.best(2.5) == {"conv": FIRST}
    assert run.best(4.0) == {"conv": FIRST, "dense": DENSE}
    assert run.best() == {"conv": BETTER, "dense": DENSE}


def test_failed_trials_count_as_trials_and_improve_nothing(run: Run) -> None:
    assert run.trials(2.0) == 2
    assert run.changes() == [1.0, 3.0, 5.0]
    assert run.changes(until=4.0) == [1.0, 3.0]


def test_what_was_measured_again_counts_with_its_median() -> None:
    lucky, honest = Event(1.0, "conv", 1.0, "lucky"), Event(2.0, "conv", 1.2, "honest")
    again = (Event(3.0, "conv", 2.0, "lucky"), Event(4.0, "conv", 1.2, "honest"))
    run = Run(5.0, {"conv": 1}, (lucky, honest, *again))
    assert run.best(2.5) == {"conv": lucky}
    assert run.best() == {"conv": honest}
    assert run.changes() == [1.0, 3.0]


def test_the_curve_begins_once_every_task_has_a_latency(run: Run) -> None:
    points = [(p.seconds, p.trials, p.latency_s) for p in run.curve()]
    assert points == [(3.0, 3, 9.0), (5.0, 5, 5.0)]


def test_a_task_whose_every_candidate_fails_does_not_hold_the_curve_up() -> None:
    events = (FAILED, FIRST)
    assert [p.latency_s for p in Run(3.0, {"conv": 2, "dense": 1}, events).curve()] == [8.0]


def test_the_time_to_come_close_to_the_own_end(run: Run) -> None:
    assert seconds_to_within(run, 0.01) == 5.0
    assert seconds_to_within(run, 1.0) == 3.0


def test_a_run_survives_its_file(run: Run, tmp_path: Path) -> None:
    run.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run


@pytest.mark.parametrize("wanted", [1, 2, 17, 50, 100])
def test_bisection_finds_the_first_moment_that_matches(wanted: int) -> None:
    asked: list[float] = []

    def matches(seconds: float) -> bool:
        asked.append(seconds)
        return seconds >= wanted

    times = [float(second) for second in range(1, 101)]
    assert first_match(times, matches) == Match(wanted - 1.0, float(wanted))
    assert len(asked) <= 2 + math.ceil(math.log2(len(times)))


def test_bisection_stops_at_the_resolution() -> None:
    times = [float(second) for second in range(1, 101)]
    found = first_match(times, lambda seconds: seconds >= 40, resolution_s=10.0)
    assert found is not None
    assert found.after_s < 40 <= found.by_s <= found.after_s + 10


def test_a_run_that_never_catches_up_has_no_match() -> None:
    assert first_match([1.0, 2.0], lambda _: False) is None
    assert first_match([], lambda _: True) is None


def test_times_of_a_match_are_shares_of_stocks_time(run: Run) -> None:
    stock = Run(10.0, run.weights, (FIRST, DENSE))
    times = compare_times(stock, run, Match(1.0, 3.0))
    assert times["ours_s_to_match"] == {"value": 3.0, "low": 1.0, "high": 3.0}
    assert times["ratio"] == {"value": 0.3, "low": 0.1, "high": 0.3}
    assert times["trials_ratio"]["value"] == 1.5


def test_without_a_match_the_ratio_is_one(run: Run) -> None:
    times = compare_times(Run(10.0, run.weights, (FIRST,)), run, None)
    assert times["ratio"]["value"] == 1.0
    assert times["matched"]["value"] == 0.0
    assert times["ours_s_to_match"]["value"] == 6.0


def test_shares_of_wall_time_add_up(run: Run) -> None:
    phases = {"tuning": 10.0, "search": 4.0, "measure": 5.0, "build": 6.0, "run": 2.0}
    shares = phase_shares(Run(10.0, run.weights, run.events, phases=phases))
    assert shares == pytest.approx({"search": 0.4, "build": 0.3, "run": 0.2, "other": 0.1})


def test_networks_are_left_out_by_structure_and_by_name(some_shipped: Path, tmp_path: Path) -> None:
    before = {
        record.workload: record for record, _ in read_workloads(some_shipped / WORKLOADS_FILE)
    }
    by_name = {name for name, record in before.items() if "segformer-128" in record.sources}
    by_structure = next(name for name, record in before.items() if "conv3d" in record.sources)
    lost = leave_out(some_shipped, tmp_path / "left", [by_structure, "0" * 16], ["segformer-128"])
    after = {record.workload for record, _ in read_workloads(tmp_path / "left" / WORKLOADS_FILE)}
    assert by_name
    assert after == before.keys() - by_name - {by_structure}
    corpus = open_corpus(tmp_path / "left").corpus
    assert set(corpus.workloads) == after
    assert lost.workloads == len(by_name) + 1
    assert (lost.kept_trials, lost.trials) == (len(corpus), 2106 - len(corpus))
