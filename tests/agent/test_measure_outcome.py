from __future__ import annotations

import pytest

from agent.measure.outcome import ERROR_LIMIT_CHARS, MeasureOutcome, better, shorten_error
from tunefleet.trials import Conditions, Verdict


@pytest.mark.parametrize(
    ("best_s", "verdict", "samples", "expected"),
    [
        (None, Verdict.OK, (3.0, 1.0, 2.0), 2.0),
        (1.0, Verdict.OK, (3.0, 1.0, 2.0), 1.0),
        (3.0, Verdict.OK, (3.0, 1.0, 2.0), 2.0),
        # A measurement in doubt must not have others sampled less.
        (3.0, Verdict.NOISY, (1.0, 2.0), 3.0),
        (None, Verdict.CRASHED, (), None),
    ],
)
def test_the_best_is_what_can_be_trusted(
    best_s: float | None, verdict: Verdict, samples: tuple[float, ...], expected: float | None
) -> None:
    assert better(best_s, MeasureOutcome("c", verdict, samples)) == expected


def test_an_outcome_crosses_the_channel_unchanged() -> None:
    outcome = MeasureOutcome(
        candidate="c0ffee",
        verdict=Verdict.THROTTLED,
        samples_s=(1.0, 2.0),
        error="hot",
        build_cpu_s=0.1,
        build_s=0.2,
        run_s=0.3,
        kernel_s=0.25,
        started_at_unix_s=4.0,
        conditions=Conditions(canary_s=1e-4, throttled=True, attempts=4, waited_share=0.0),
    )
    assert MeasureOutcome.from_message(outcome.to_message()) == outcome


def test_an_error_is_made_short_and_storable() -> None:
    assert shorten_error(" a\0b ") == "ab"
    assert len(shorten_error("x" * 100_000)) <= ERROR_LIMIT_CHARS
