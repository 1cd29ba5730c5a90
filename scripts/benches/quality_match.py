"""Networks timed side by side, and when one run's result caught up with another's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.benches.harness import Figure, note
from scripts.benches.quality_compile import compile_known
from scripts.benches.quality_curve import Match, Run, first_match
from scripts.benches.quality_jobs import JobError, run_job
from scripts.benches.quality_networks import QualityNetwork
from tunefleet.intervals import median_interval

_TURNS = 21
_FIRST_TURNS = 4
_CLEAR = 1.15
"""Whoever is ahead by this factor in each of a few turns needs not be timed for long."""
_MIN_REPEAT_MS = 100.0
_RESOLUTION = 0.01
"""Share of the other run's time that is a good enough bracket."""


@dataclass(frozen=True)
class Subject:
    """A network to time."""

    name: str
    kind: str
    """``tvm`` or ``onnx``."""
    path: Path


@dataclass(frozen=True)
class SideBySide:
    """Latencies of subjects that took turns."""

    samples_s: Mapping[str, tuple[float, ...]]
    """Seconds per run, one value a turn, by subject."""
    max_abs_err: Mapping[str, float]
    """Largest difference of any output to onnxruntime's, by subject."""

    def ratio(self, slower: str, faster: str) -> list[float]:
        """Return one subject's latency over another's, turn by turn."""
        pairs = zip(self.samples_s[slower], self.samples_s[faster], strict=True)
        return [a / b for a, b in pairs]


def time_side_by_side(
    subjects: Sequence[Subject],
    network: QualityNetwork,
    threads: int,
    folder: Path,
    turns: int = _TURNS,
) -> SideBySide:
    """Time networks in turns, so that drift meets all alike.

    Raises:
        JobError: one of them does not run.
    """
    spec = {
        "subjects": [{"name": s.name, "kind": s.kind, "path": str(s.path)} for s in subjects],
        "inputs": str(network.inputs),
        "outputs": str(network.outputs),
        "threads": threads,
        "repeat": turns,
        "min_repeat_ms": _MIN_REPEAT_MS,
    }
    results = run_job("agent.benchmark.job", spec, folder)["results"]
    for result in results:
        if result["error"]:
            raise JobError(f"{network.name} by {result['name']}: {result['error']}")
    return SideBySide(
        {result["name"]: tuple(result["samples_s"]) for result in results},
        {result["name"]: float(result["max_abs_err"]) for result in results},
    )


def when_matched(
    run: Run,
    stock: Run,
    network: QualityNetwork,
    folder: Path,
    *,
    target: str,
    threads: int,
) -> Match | None:
    """Find when our run's network was at least as fast as stock's final one, both end to end.

    At each moment looked at, the network is compiled with what was known by then and timed in turns
    with stock's.

    Returns:
        The bracket, or ``None`` if it never was within the time that stock took.
    """

    def matches(seconds: float) -> bool:
        ours = Subject("ours", "tvm", compile_known(run, seconds, target, folder))
        theirs = Subject("stock", "tvm", Path(stock.library))
        ahead = _ratio(ours, theirs, _FIRST_TURNS)
        if min(ahead) < _CLEAR and max(ahead) > 1 / _CLEAR:
            ahead = _ratio(ours, theirs, _TURNS)
        ratio = statistics.median(ahead)
        note(f"time-to-quality: {network.name} after {seconds:.0f} s: {ratio:.3f} of stock's")
        return ratio <= 1.0

    def _ratio(ours: Subject, theirs: Subject, turns: int) -> list[float]:
        timed = time_side_by_side([ours, theirs], network, threads, folder, turns)
        return timed.ratio("ours", "stock")

    times = run.changes(stock.seconds)
    return first_match(times, matches, _RESOLUTION * stock.seconds)


def median_figure(values: Sequence[float]) -> Figure:
    """Return the median of turns with its 90 % interval."""
    low, high = median_interval(values)
    made = {"value": statistics.median(values), "low": low, "high": high}
    return {name: round(value, 4) for name, value in made.items()}
