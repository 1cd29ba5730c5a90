"""Trials: candidates that were measured, and what came of it."""

from __future__ import annotations

import hashlib
import statistics
from dataclasses import dataclass, field
from enum import StrEnum

from tunefleet.features import MAX_STORES, PROGRAM_FEATURES_PER_STORE
from tunefleet.intervals import median_interval, relative_half_width

MAX_TRACE_CHARS = 4 * 2**20
"""A hundred times the longest trace that MetaSchedule makes of one operator."""

MAX_SAMPLES = 1_000
"""Samples of one trial; some dozens are taken."""

LONGEST_S = 1e7
"""No measurement takes four months; a larger number of seconds is a mistake."""


class Verdict(StrEnum):
    """What a trial's measurement is worth."""

    OK = "ok"
    NOISY = "noisy"
    CONTENDED = "contended"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    BUILD_ERROR = "build_error"
    RUNTIME_ERROR = "runtime_error"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"

    @property
    def has_latency(self) -> bool:
        """Whether the samples say something about the candidate's speed."""
        return self in _WITH_LATENCY


_WITH_LATENCY = frozenset({Verdict.OK, Verdict.NOISY, Verdict.CONTENDED, Verdict.THROTTLED})


@dataclass(frozen=True)
class Conditions:
    """The state of the machine around a measurement. ``None`` means that it does not tell."""

    clock_mhz: float | None = None
    temperature_c: float | None = None
    load_average: float | None = None
    memory_available_bytes: int | None = None
    canary_s: float | None = None
    """Seconds that a fixed reference kernel took around the samples, with the same threads: the
    median of its readings. It compares with itself only, on one device and target."""
    throttled: bool | None = None
    """Whether the machine said meanwhile that it lowered its clock for heat or power."""
    foreign_cores: float | None = None
    """Cores that other processes kept busy, anywhere in the machine."""
    steal_cores: float | None = None
    """Cores whose time a hypervisor gave to others."""
    waited_share: float | None = None
    """Time the candidate's threads waited for a core, as a share of the measurement's wall time;
    above 1 where several waited at once."""
    attempts: int | None = None
    """How often samples were taken: above 1 where the machine's state had spoilt some."""
    flushed_cache: bool | None = None
    """Whether caches were emptied before each run; ``False``: they held what the run before left.
    """


@dataclass(frozen=True)
class ProgramFeatures:
    """Raw features of one scheduled program.

    ``data`` holds ``stores`` rows of ``PROGRAM_FEATURES_PER_STORE`` little-endian float32 values.
    """

    stores: int
    data: bytes = field(repr=False)

    def check(self) -> None:
        """Check that the bytes have the declared shape.

        Raises:
            ValueError: they do not.
        """
        expected = self.stores * PROGRAM_FEATURES_PER_STORE * 4
        if not 0 <= self.stores <= MAX_STORES or len(self.data) != expected:
            raise ValueError(
                f"features of {self.stores} stores must have {expected} bytes and at most "
                f"{MAX_STORES} stores, but have {len(self.data)} bytes"
            )


@dataclass(frozen=True)
class Trial:
    """One measured candidate."""

    trial_id: str
    lease_id: str
    candidate: str
    """Structural hash of the scheduled module in hex: equal programs have equal names."""
    trace: str = field(repr=False)
    """The schedule trace as JSON, postprocessing included; ``[[],[]]`` is the untuned program."""
    verdict: Verdict
    samples_s: tuple[float, ...] = ()
    """Raw seconds per run, one a repeat, in the order measured; empty where nothing ran."""
    error: str = ""
    features: ProgramFeatures | None = None
    predicted: float | None = None
    """The score by which the candidate was chosen (higher is better), if a model gave one."""
    model_version: str = ""
    explored: bool = False
    """Chosen for being uncertain or different rather than for its score."""
    build_s: float | None = None
    run_s: float | None = None
    started_at_unix_s: float = 0.0
    conditions: Conditions = Conditions()

    @property
    def latency_s(self) -> float | None:
        """Median of the samples in seconds, or ``None`` where the verdict gives no latency."""
        if not self.samples_s or not self.verdict.has_latency:
            return None
        return statistics.median(self.samples_s)

    @property
    def latency_interval_s(self) -> tuple[float, float] | None:
        """Interval of the median in seconds, or ``None`` where the verdict gives no latency."""
        if not self.samples_s or not self.verdict.has_latency:
            return None
        return median_interval(self.samples_s)

    @property
    def noise(self) -> float:
        """Half the width of the median's interval, as a share of it; 0 where that is not known."""
        if self.latency_s is None or len(self.samples_s) < 2:
            return 0.0
        return relative_half_width(self.samples_s)


def trial_id(lease_id: str, candidate: str, attempt: int) -> str:
    """Derive the name under which a trial is stored exactly once, however often it is sent."""
    text = f"{lease_id}/{candidate}/{attempt}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
