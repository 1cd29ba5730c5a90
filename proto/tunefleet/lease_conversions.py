"""Conversions between messages and native objects of leased work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

from tunefleet.conversions import duration, seconds
from tunefleet.leases import (
    BenchmarkResult,
    BenchmarkSpec,
    BenchmarkSubject,
    FeaturizedTrace,
    FeaturizeSpec,
    KnownTrace,
    Lease,
    MeasurePolicy,
    NamedTrace,
    OpTime,
    ReplaySpec,
    RoundSpec,
    SearchPolicy,
    Work,
)
from tunefleet.trials import LONGEST_S, ProgramFeatures
from tunefleet.v1 import lease_pb2, trial_pb2

_SUBJECT_KINDS = {
    "tvm": lease_pb2.BENCHMARK_SUBJECT_KIND_TVM,
    "onnx": lease_pb2.BENCHMARK_SUBJECT_KIND_ONNX,
}
_SUBJECT_KINDS_BACK = {number: kind for kind, number in _SUBJECT_KINDS.items()}


def lease_to_proto(lease: Lease) -> lease_pb2.Lease:
    """Make a message of a lease."""
    message = lease_pb2.Lease(
        lease_id=lease.lease_id,
        fencing_token=lease.fencing_token,
        ttl=duration(lease.ttl_s),
        campaign_id=lease.campaign_id,
    )
    work = lease.work
    if isinstance(work, RoundSpec):
        message.round.CopyFrom(_round_to_proto(work))
    elif isinstance(work, BenchmarkSpec):
        message.benchmark.CopyFrom(_benchmark_to_proto(work))
    elif isinstance(work, ReplaySpec):
        message.replay.CopyFrom(_replay_to_proto(work))
    else:
        message.featurize.CopyFrom(_featurize_to_proto(work))
    return message


def lease_from_proto(message: lease_pb2.Lease) -> Lease:
    """Read a lease.

    Raises:
        ValueError: it brings work of a kind that this release does not know, or a time is none.
    """
    kind = message.WhichOneof("work")
    work: Work
    if kind == "round":
        work = _round_from_proto(message.round)
    elif kind == "benchmark":
        work = _benchmark_from_proto(message.benchmark)
    elif kind == "replay":
        work = _replay_from_proto(message.replay)
    elif kind == "featurize":
        work = _featurize_from_proto(message.featurize)
    else:
        raise ValueError("the lease brings work of an unknown kind; update this agent")
    return Lease(
        lease_id=message.lease_id,
        fencing_token=message.fencing_token,
        ttl_s=seconds(message.ttl),
        campaign_id=message.campaign_id,
        work=work,
    )


def benchmark_result_to_proto(result: BenchmarkResult) -> lease_pb2.BenchmarkResult:
    """Make a message of what came of one subject."""
    return lease_pb2.BenchmarkResult(
        **asdict(result) | {"ops": [lease_pb2.OpTime(**asdict(op)) for op in result.ops]}
    )


def benchmark_result_from_proto(message: lease_pb2.BenchmarkResult) -> BenchmarkResult:
    """Read what came of one subject.

    Raises:
        ValueError: a sample is not a positive time, or another time is none.
    """
    if not all(0 < s <= LONGEST_S for s in (*message.samples_s, *message.profiled_s)):
        raise ValueError(f"a sample of {message.name!r:.80} is not a positive time")
    if not all(
        abs(s) <= LONGEST_S for s in (*message.between_s, *(op.seconds for op in message.ops))
    ):
        raise ValueError(f"a part of the time of {message.name!r:.80} is no time")
    return BenchmarkResult(
        name=message.name,
        samples_s=tuple(message.samples_s),
        max_abs_err=message.max_abs_err if message.HasField("max_abs_err") else None,
        error=message.error,
        ops=tuple(OpTime(op.name, op.op, op.calls, op.seconds) for op in message.ops),
        profiled_s=tuple(message.profiled_s),
        between_s=tuple(message.between_s),
    )


def _round_to_proto(spec: RoundSpec) -> lease_pb2.RoundSpec:
    return lease_pb2.RoundSpec(
        workload=spec.workload,
        workload_digest=spec.workload_digest,
        target=spec.target,
        trials=spec.trials,
        seed=spec.seed,
        model_version=spec.model_version,
        model_digest=spec.model_digest,
        known=[lease_pb2.KnownTrace(**asdict(known)) for known in spec.known],
        tried=sorted(int(candidate, 16) for candidate in spec.tried),
        include_baseline=spec.include_baseline,
        measure=_measure_to_proto(spec.measure),
        search=lease_pb2.SearchPolicy(**asdict(spec.search)),
        related=spec.related,
    )


def _round_from_proto(message: lease_pb2.RoundSpec) -> RoundSpec:
    search = message.search
    return RoundSpec(
        workload=message.workload,
        workload_digest=message.workload_digest,
        target=message.target,
        trials=message.trials,
        seed=message.seed,
        model_version=message.model_version,
        model_digest=message.model_digest,
        known=tuple(KnownTrace(k.trace, k.latency_s, k.candidate) for k in message.known),
        tried=frozenset(f"{candidate:016x}" for candidate in message.tried),
        include_baseline=message.include_baseline,
        measure=_measure_from_proto(message.measure),
        search=SearchPolicy(
            population=search.population,
            generations=search.generations,
            exploration=search.exploration,
        ),
        related=tuple(message.related),
    )


def _measure_to_proto(policy: MeasurePolicy) -> lease_pb2.MeasurePolicy:
    return lease_pb2.MeasurePolicy(
        number=policy.number,
        repeat=policy.repeat,
        min_repeat_ms=policy.min_repeat_ms,
        build_timeout=duration(policy.build_timeout_s),
        run_timeout=duration(policy.run_timeout_s),
        memory_limit_bytes=policy.memory_limit_bytes,
        max_repeat=policy.max_repeat,
        budget=duration(policy.budget_ms / 1000),
        precision=policy.precision,
        slow_ratio=policy.slow_ratio,
        max_attempts=policy.max_attempts,
        flush_cache=policy.flush_cache,
    )


def _measure_from_proto(message: lease_pb2.MeasurePolicy) -> MeasurePolicy:
    return MeasurePolicy(
        number=message.number,
        repeat=message.repeat,
        min_repeat_ms=message.min_repeat_ms,
        build_timeout_s=seconds(message.build_timeout),
        run_timeout_s=seconds(message.run_timeout),
        memory_limit_bytes=message.memory_limit_bytes,
        max_repeat=message.max_repeat,
        budget_ms=round(seconds(message.budget) * 1000),
        precision=message.precision,
        slow_ratio=message.slow_ratio,
        max_attempts=message.max_attempts,
        flush_cache=message.flush_cache,
    )


def _traces_to_proto(traces: Iterable[NamedTrace]) -> list[lease_pb2.NamedTrace]:
    return [lease_pb2.NamedTrace(candidate=t.candidate, trace=t.trace) for t in traces]


def _traces_from_proto(messages: Iterable[lease_pb2.NamedTrace]) -> tuple[NamedTrace, ...]:
    return tuple(NamedTrace(t.candidate, t.trace) for t in messages)


def _replay_to_proto(spec: ReplaySpec) -> lease_pb2.ReplaySpec:
    return lease_pb2.ReplaySpec(
        workload=spec.workload,
        workload_digest=spec.workload_digest,
        target=spec.target,
        traces=_traces_to_proto(spec.traces),
        measure=_measure_to_proto(spec.measure),
    )


def _replay_from_proto(message: lease_pb2.ReplaySpec) -> ReplaySpec:
    return ReplaySpec(
        workload=message.workload,
        workload_digest=message.workload_digest,
        target=message.target,
        traces=_traces_from_proto(message.traces),
        measure=_measure_from_proto(message.measure),
    )


def _featurize_to_proto(spec: FeaturizeSpec) -> lease_pb2.FeaturizeSpec:
    return lease_pb2.FeaturizeSpec(
        workload=spec.workload,
        workload_digest=spec.workload_digest,
        target=spec.target,
        traces=_traces_to_proto(spec.traces),
    )


def _featurize_from_proto(message: lease_pb2.FeaturizeSpec) -> FeaturizeSpec:
    return FeaturizeSpec(
        workload=message.workload,
        workload_digest=message.workload_digest,
        target=message.target,
        traces=_traces_from_proto(message.traces),
    )


def featurized_to_proto(result: FeaturizedTrace) -> lease_pb2.FeaturizedTrace:
    """Make a message of what came of one schedule."""
    features = None
    if result.features is not None:
        features = trial_pb2.ProgramFeatures(
            stores=result.features.stores, data=result.features.data
        )
    return lease_pb2.FeaturizedTrace(
        candidate=result.candidate, features=features, error=result.error
    )


def featurized_from_proto(message: lease_pb2.FeaturizedTrace) -> FeaturizedTrace:
    """Read what came of one schedule.

    Raises:
        ValueError: the features do not have the bytes that their shape says.
    """
    features = None
    if message.HasField("features"):
        features = ProgramFeatures(message.features.stores, message.features.data)
        features.check()
    return FeaturizedTrace(message.candidate, features, message.error)


def _benchmark_to_proto(spec: BenchmarkSpec) -> lease_pb2.BenchmarkSpec:
    return lease_pb2.BenchmarkSpec(
        target=spec.target,
        subjects=[
            lease_pb2.BenchmarkSubject(name=s.name, kind=_SUBJECT_KINDS[s.kind], digest=s.digest)
            for s in spec.subjects
        ],
        inputs_digest=spec.inputs_digest,
        outputs_digest=spec.outputs_digest,
        threads=spec.threads,
        repeat=spec.repeat,
        min_repeat_ms=spec.min_repeat_ms,
        timeout=duration(spec.timeout_s),
        per_op=spec.per_op,
    )


def _benchmark_from_proto(message: lease_pb2.BenchmarkSpec) -> BenchmarkSpec:
    if any(s.kind not in _SUBJECT_KINDS_BACK for s in message.subjects):
        raise ValueError("the lease names a kind of subject that is unknown; update this agent")
    return BenchmarkSpec(
        target=message.target,
        subjects=tuple(
            BenchmarkSubject(s.name, _SUBJECT_KINDS_BACK[s.kind], s.digest)
            for s in message.subjects
        ),
        inputs_digest=message.inputs_digest,
        outputs_digest=message.outputs_digest,
        threads=message.threads,
        repeat=message.repeat,
        min_repeat_ms=message.min_repeat_ms,
        timeout_s=seconds(message.timeout),
        per_op=message.per_op,
    )
