"""What ran when the device went down is known afterwards, and not measured for ever."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest

from agent.measure.outcome import MeasureOutcome
from agent.profile.static import read_static_profile
from agent.recorder import Recorder, RunningMark
from agent.rounds import RoundInput, measure_proposal
from agent.search.messages import Candidate, Proposal, SearchStats
from tunefleet.leases import MeasurePolicy, RoundSpec
from tunefleet.trials import ProgramFeatures, Trial, Verdict, trial_id

KILLER, HARMLESS = "aa" * 8, "bb" * 8
TRACES = {KILLER: "[[],[1]]", HARMLESS: "[[],[2]]"}


def goes_down(folder: Path, lease_id: str = "l-1", candidate: str = KILLER) -> None:
    """Measure until the device goes down."""
    Recorder(folder).begin(lease_id, 7, TRACES)
    RunningMark(folder).set(candidate)


def comes_back(folder: Path) -> Recorder:
    """Start the agent again, and report."""
    recorder = Recorder(folder)
    assert recorder.recover() is not None
    recorder.forget()
    return Recorder(folder)


def test_what_ran_becomes_a_lost_trial_of_its_lease(tmp_path: Path) -> None:
    goes_down(tmp_path)
    lost = Recorder(tmp_path).recover()
    assert lost is not None
    assert lost.fencing_token == 7
    assert (lost.trial.lease_id, lost.trial.candidate) == ("l-1", KILLER)
    assert lost.trial.trial_id == trial_id("l-1", KILLER, attempt=0)
    assert (lost.trial.verdict, lost.trial.trace) == (Verdict.LOST, TRACES[KILLER])


def test_it_is_told_until_it_is_forgotten(tmp_path: Path) -> None:
    goes_down(tmp_path)
    assert Recorder(tmp_path).recover() == Recorder(tmp_path).recover()
    recorder = comes_back(tmp_path)
    assert recorder.recover() is None
    assert (recorder.times(KILLER), recorder.times(HARMLESS)) == (1, 0)
    assert recorder.knows(KILLER, "l-1")
    assert not recorder.knows(KILLER, "l-2")


def test_going_down_again_under_the_same_lease_counts_once(tmp_path: Path) -> None:
    for lease_id, times in (("l-1", 1), ("l-1", 1), ("l-2", 2)):
        goes_down(tmp_path, lease_id)
        assert comes_back(tmp_path).times(KILLER) == times


def test_a_candidate_that_ended_is_not_blamed(tmp_path: Path) -> None:
    goes_down(tmp_path)
    with RunningMark(tmp_path) as mark:
        mark.set(HARMLESS)
    assert Recorder(tmp_path).recover() is None


@pytest.mark.parametrize("file", ["measuring.json", "took-device-down.json", "running"])
def test_files_that_the_crash_damaged_do_no_harm(tmp_path: Path, file: str) -> None:
    goes_down(tmp_path)
    (tmp_path / file).write_bytes(b"\xff\x00")
    recorder = Recorder(tmp_path)
    recorder.recover()
    recorder.forget()
    assert recorder.times(HARMLESS) == 0


def test_an_agent_that_is_new_has_nothing_to_tell(tmp_path: Path) -> None:
    assert Recorder(tmp_path / "nowhere").recover() is None


class _Measurer:
    """Measures everything in no time."""

    def __init__(self) -> None:
        self.measured: list[str] = []

    async def measure(
        self,
        workload_path: Path,
        target: str,
        candidates: Sequence[tuple[str, str]],
        policy: MeasurePolicy,
        best_s: float | None = None,
    ) -> AsyncGenerator[MeasureOutcome, None]:
        for name, _ in candidates:
            self.measured.append(name)
            yield MeasureOutcome(name, Verdict.OK, samples_s=(1e-3,))


async def measured(recorder: Recorder, lease_id: str) -> tuple[list[str], dict[str, Trial]]:
    """Measure both candidates; returns which were, and the trials by candidate."""
    spec = RoundSpec("0" * 16, "", "{}", trials=2, seed=0)
    none = Path("none")
    work = RoundInput(lease_id, spec, none, None, read_static_profile(), 7, recorder)
    candidates = tuple(
        Candidate(name, trace, ProgramFeatures(0, b""), predicted=None, explored=False)
        for name, trace in TRACES.items()
    )
    proposal = Proposal(candidates, False, "", SearchStats(0, 2, {}))
    trials: dict[str, Trial] = {}
    measurer = _Measurer()

    async def deliver(trial: Trial) -> None:
        trials[trial.candidate] = trial

    await measure_proposal(work, proposal, measurer, deliver)
    return measurer.measured, trials


async def test_under_the_same_lease_it_is_left_out(tmp_path: Path) -> None:
    goes_down(tmp_path)
    names, trials = await measured(comes_back(tmp_path), "l-1")
    assert names == [HARMLESS]
    assert trials.keys() == {HARMLESS}, "it was reported when the agent came back"


async def test_under_another_lease_it_gets_another_chance(tmp_path: Path) -> None:
    goes_down(tmp_path)
    names, _ = await measured(comes_back(tmp_path), "l-2")
    assert names == [KILLER, HARMLESS]


async def test_after_a_second_time_it_is_never_measured_again(tmp_path: Path) -> None:
    for lease_id in ("l-1", "l-2"):
        goes_down(tmp_path, lease_id)
        comes_back(tmp_path)
    names, trials = await measured(Recorder(tmp_path), "l-3")
    assert names == [HARMLESS]
    assert trials[KILLER].verdict is Verdict.LOST
    assert "2 times" in trials[KILLER].error
