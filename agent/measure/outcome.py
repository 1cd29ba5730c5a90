"""What came of measuring one candidate, in the form that crosses the channel."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tunefleet.trials import Conditions, Verdict

ERROR_LIMIT_CHARS = 2000
"""A longer error adds nothing but traffic: trials are kept for ever."""


@dataclass(frozen=True)
class MeasureOutcome:
    """One candidate's measurement. The fields mean what those of a trial mean."""

    candidate: str
    verdict: Verdict
    samples_s: tuple[float, ...] = ()
    """Raw seconds per run, in the order measured."""
    error: str = ""
    build_cpu_s: float | None = None
    """CPU seconds of the same, which do not count the time it was paused; not part of a trial."""
    build_s: float | None = None
    """Wall seconds to apply the trace, compile, load and make inputs; ``None`` if that failed."""
    run_s: float | None = None
    """Wall seconds of all runs, discarded ones included; ``None`` if they did not end."""
    kernel_s: float | None = None
    """Wall seconds in which the program itself ran, warm-up included; not part of a trial."""
    started_at_unix_s: float = 0.0
    """When building began."""
    conditions: Conditions = field(default_factory=Conditions)

    def to_message(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> MeasureOutcome:
        """Read what :meth:`to_message` wrote; other keys are ignored."""
        return cls(
            candidate=message["candidate"],
            verdict=Verdict(message["verdict"]),
            samples_s=tuple(message["samples_s"]),
            error=message["error"],
            build_cpu_s=message["build_cpu_s"],
            build_s=message["build_s"],
            run_s=message["run_s"],
            kernel_s=message["kernel_s"],
            started_at_unix_s=message["started_at_unix_s"],
            conditions=Conditions(**message["conditions"]),
        )


def better(best_s: float | None, outcome: MeasureOutcome) -> float | None:
    """Return the best latency known in seconds, once this outcome is known too.

    Only measurements that can be trusted count: whatever comes after is judged by it.
    """
    if outcome.verdict is not Verdict.OK:
        return best_s
    latency_s = statistics.median(outcome.samples_s)
    return latency_s if best_s is None else min(best_s, latency_s)


def shorten_error(text: str) -> str:
    """Bound an error's length, keeping its beginning and its end, where TVM says what is wrong."""
    # A compiler may say anything, but a database takes no NUL.
    text = text.replace("\0", "").strip()
    if len(text) <= ERROR_LIMIT_CHARS:
        return text
    half = ERROR_LIMIT_CHARS // 2 - 5
    return f"{text[:half]}\n[...]\n{text[-half:]}"
