"""Which schedules are measured again when tuning ends, and what is made of that."""

from __future__ import annotations

from coordinator.campaigns.finals import FINALISTS, contenders
from coordinator.state.estimates import Estimates
from coordinator.state.trial_records import MeasuredTrial


def trials(*latencies_ms: tuple[str, float]) -> list[MeasuredTrial]:
    made = [
        MeasuredTrial(f"t{n}", name, latency_ms / 1000)
        for n, (name, latency_ms) in enumerate(latencies_ms)
    ]
    return sorted(made, key=lambda t: (t.latency_s, t.candidate))


class TestContenders:
    def test_those_near_the_best_meet_again(self) -> None:
        assert contenders(trials(("a", 10.0), ("b", 11.0), ("c", 12.0))) == ("t0", "t1")

    def test_there_are_few_of_them(self) -> None:
        many = trials(*((name, 10.0 + n / 10) for n, name in enumerate("abcdef")))
        assert contenders(many) == tuple(f"t{n}" for n in range(FINALISTS))

    def test_one_alone_has_nobody_to_meet(self) -> None:
        assert contenders(trials(("a", 10.0), ("b", 12.0))) == ()
        assert contenders([]) == ()

    def test_what_was_measured_often_is_settled(self) -> None:
        often = [("a", 10.0), ("b", 11.0)] * 3
        assert contenders(trials(*often)) == ()
        assert contenders(trials(*often, ("c", 10.5))) == ("t0", "t6", "t1")

    def test_the_best_one_is_always_among_them(self) -> None:
        lucky = [(name, 9.9) for name in "bcdef"]
        chosen = contenders(trials(("a", 10.0), ("a", 10.0), *lucky))
        assert len(chosen) == FINALISTS
        assert "t0" in chosen


class TestEstimates:
    def test_the_fastest_is_the_best_while_all_were_measured_once(self) -> None:
        estimates = Estimates()
        assert (estimates.best, estimates.best_s) == ("", None)
        for name, latency_s in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
            estimates.add(name, latency_s)
        assert (estimates.best, estimates.best_s) == ("b", 1.0)

    def test_who_was_lucky_once_loses_against_who_is_steady(self) -> None:
        estimates = Estimates()
        for name, latency_s in (("a", 1.0), ("b", 1.1), ("a", 1.3), ("b", 1.1), ("a", 1.2)):
            estimates.add(name, latency_s)
        assert (estimates.best, estimates.best_s) == ("b", 1.1)
        assert estimates.by_estimate() == [("b", 1.1), ("a", 1.2)]

    def test_a_single_measurement_must_be_clearly_faster(self) -> None:
        estimates = Estimates()
        for name, latency_s in (("a", 1.0), ("a", 1.0), ("b", 0.9)):
            estimates.add(name, latency_s)
        assert estimates.best == "a"
        estimates.add("c", 0.8)
        assert estimates.best == "c"
