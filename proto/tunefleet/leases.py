"""Work that an agent leases: what it needs to know, and nothing that lives elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from tunefleet.trials import ProgramFeatures

BASELINE_TRACE = "[[],[]]"
"""The empty schedule: measuring it gives the untuned latency of a workload."""

_LONGEST_BASELINE = 16
"""Characters; a longer trace holds instructions, and need not be parsed to know it."""


def is_baseline(trace: str) -> bool:
    """Return whether a trace is the empty schedule, however it is spelled."""
    if len(trace) > _LONGEST_BASELINE:
        return False
    try:
        return bool(json.loads(trace) == json.loads(BASELINE_TRACE))
    except ValueError:
        return False


@dataclass(frozen=True)
class KnownTrace:
    """A schedule measured before, to start a search from."""

    trace: str = field(repr=False)
    latency_s: float
    candidate: str


@dataclass(frozen=True)
class MeasurePolicy:
    """How each candidate is timed and bounded.

    Where ``max_repeat`` is above ``repeat`` a candidate is sampled until it is clearly slower than
    the best one known, or until the interval of its median (see :mod:`tunefleet.intervals`) is
    narrow and does not contain the best one's latency. Otherwise exactly ``repeat`` samples are
    taken, as TVM's own runners do.
    """

    number: int = 1
    """Runs averaged into one sample, at the least."""
    repeat: int = 3
    """Samples, at the least."""
    min_repeat_ms: int = 5
    """Least length of a sample. Time slices and interruptions are as long; shorter samples would
    need more of them, and longer ones would be spoilt more often."""
    max_repeat: int = 24
    """Samples, at the most."""
    budget_ms: int = 300
    """Time for samples beyond the first ``repeat`` ones."""
    precision: float = 0.01
    """Half the width of the median's interval, as a share of the median, that is narrow enough."""
    slow_ratio: float = 1.25
    """A candidate is clearly slower than the best if all its samples are by this factor."""
    max_attempts: int = 4
    """How often samples are taken that the machine's state spoils before the trial is called
    contended or throttled."""
    flush_cache: bool = False
    """Whether caches are emptied before each sample, which is one run then; else they hold what
    the run before left there."""
    build_timeout_s: float = 10.0
    """What takes this long to compile is unrolled beyond measure, and hardly ever fast."""
    run_timeout_s: float = 10.0
    memory_limit_bytes: int = 4 * 2**30
    """Address space a candidate may take beyond what the worker has."""

    @property
    def adaptive(self) -> bool:
        """Whether the samples themselves decide how many are taken."""
        return self.max_repeat > self.repeat


@dataclass(frozen=True)
class SearchPolicy:
    """How large a search precedes a round's measurements."""

    population: int = 128
    generations: int = 2
    exploration: float = 0.15
    """Share of a round given to candidates that are uncertain or different."""


@dataclass(frozen=True)
class RoundSpec:
    """One batch of trials of one task."""

    workload: str
    """Structural hash of the workload in hex."""
    workload_digest: str
    """Blob with the workload's IRModule, as TVM's JSON."""
    target: str
    trials: int
    seed: int
    model_version: str = ""
    model_digest: str = ""
    """Blob with the cost model's ONNX file; empty where there is none yet."""
    known: tuple[KnownTrace, ...] = ()
    related: tuple[str, ...] = ()
    """Fast schedules of similar workloads, or of this one on other hardware or for other targets,
    as traces in JSON, the nearest first. Some may not fit this workload."""
    tried: frozenset[str] = frozenset()
    """Candidates that are not to be measured again."""
    include_baseline: bool = False
    measure: MeasurePolicy = MeasurePolicy()
    search: SearchPolicy = SearchPolicy()


@dataclass(frozen=True)
class BenchmarkSubject:
    """One whole model to be run end to end."""

    name: str
    """``untuned``, ``tuned`` or ``onnxruntime``."""
    kind: str
    """``tvm`` (a shared library with a Relax VM executable) or ``onnx``."""
    digest: str


@dataclass(frozen=True)
class BenchmarkSpec:
    """Whole models to be compared with a reference and timed, in turn, with the same threads."""

    target: str
    subjects: tuple[BenchmarkSubject, ...]
    inputs_digest: str
    """Blob: a NumPy ``.npz`` without pickles; arrays ``input_0`` ... in the model's order."""
    outputs_digest: str
    """The reference's outputs for these, ``output_0`` ... in the model's order."""
    threads: int
    repeat: int = 10
    min_repeat_ms: int = 100
    timeout_s: float = 120.0
    per_op: bool = False
    """Also tell where the time goes inside of each subject."""


@dataclass(frozen=True)
class OpTime:
    """What one function or operator takes in a run of a whole model."""

    name: str
    """Name of the function that the network calls, or of the ONNX node."""
    op: str
    """Type of the ONNX operator; empty for a function."""
    calls: int
    """Times that one run calls it."""
    seconds: float
    """Seconds that one run spends in it, all calls together: the median over repeats."""


@dataclass(frozen=True)
class BenchmarkResult:
    """What came of one subject."""

    name: str
    samples_s: tuple[float, ...] = ()
    max_abs_err: float | None = None
    error: str = ""
    ops: tuple[OpTime, ...] = ()
    """Where the time goes, in the order of the first calls; empty where that was not asked for."""
    profiled_s: tuple[float, ...] = ()
    """Seconds per run while that was being found out, which costs time of its own."""
    between_s: tuple[float, ...] = ()
    """Of each of these, what passed between the calls: in the virtual machine, or in noting."""


@dataclass(frozen=True)
class NamedTrace:
    """A schedule and the program that it makes."""

    candidate: str
    trace: str = field(repr=False)


@dataclass(frozen=True)
class ReplaySpec:
    """Known schedules of one task to be measured as they are."""

    workload: str
    workload_digest: str
    target: str
    traces: tuple[NamedTrace, ...]
    measure: MeasurePolicy = MeasurePolicy()


@dataclass(frozen=True)
class FeaturizeSpec:
    """Known schedules of one workload whose features are to be computed."""

    workload: str
    workload_digest: str
    target: str
    traces: tuple[NamedTrace, ...]


@dataclass(frozen=True)
class FeaturizedTrace:
    """What came of one schedule whose features were asked for."""

    candidate: str
    features: ProgramFeatures | None = None
    error: str = ""
    """Why there are none."""


Work = RoundSpec | BenchmarkSpec | ReplaySpec | FeaturizeSpec
"""What a lease may ask for."""


@dataclass(frozen=True)
class Lease:
    """The right, limited in time and fenced by a token, to do one piece of work."""

    lease_id: str
    fencing_token: int
    ttl_s: float
    campaign_id: str
    work: Work
