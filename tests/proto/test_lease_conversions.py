"""Leases survive being sent."""

from __future__ import annotations

from tunefleet.lease_conversions import lease_from_proto, lease_to_proto
from tunefleet.leases import KnownTrace, Lease, MeasurePolicy, RoundSpec, SearchPolicy


def test_a_round_arrives_as_it_was_sent() -> None:
    work = RoundSpec(
        workload="00000000000000aa",
        workload_digest="1" * 64,
        target='{"kind":"llvm"}',
        trials=8,
        seed=7,
        model_version="v3",
        model_digest="2" * 64,
        known=(KnownTrace("[[],[]]", 1e-3, "00000000000000ab"),),
        related=("[[1],[]]", "[[2],[]]"),
        tried=frozenset({"00000000000000ab", "ffffffffffffffff"}),
        include_baseline=True,
        measure=MeasurePolicy(number=5, max_attempts=3),
        search=SearchPolicy(population=64, generations=3, exploration=0.5),
    )
    lease = Lease("l-1", 3, 60.0, "c-1", work)
    assert lease_from_proto(lease_to_proto(lease)) == lease
