"""Benchmarks of whole networks: what one is of, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    DeviceRecord,
    GroupRecord,
    LeaseKind,
    LeaseRecord,
    LeaseState,
)
from coordinator.state.store import Store
from tunefleet.leases import BenchmarkResult, BenchmarkSpec, BenchmarkSubject
from tunefleet.targets import target_cores

log = structlog.get_logger()

BENCHMARK_ATTEMPTS = 2
"""A benchmark that failed is tried once more, then its group is reported without one."""


def choose_benchmark(
    store: Store, campaign: CampaignRecord, group: GroupRecord, device: DeviceRecord
) -> BenchmarkSpec | None:
    """Return the benchmark that a group waits for; ``None`` where it waits for none.

    Args:
        store: knows whether another device is at it.
        campaign: whose network it is.
        group: the devices and the target it was compiled for.
        device: one of the group, which will do it.
    """
    if not group.compiled or group.benchmark_s or group.benchmark_error:
        return None
    active = store.list_leases(campaign.campaign_id, [LeaseState.ACTIVE])
    if any(_is_benchmark_of(lease, group.target, group.fingerprint) for lease in active):
        return None
    subjects = [BenchmarkSubject(n, "tvm", d) for n, d in sorted(group.compiled.items())]
    if campaign.onnx_digest:
        subjects.append(BenchmarkSubject("onnxruntime", "onnx", campaign.onnx_digest))
    per_op = campaign.spec.bench is not None and campaign.spec.bench.per_op
    return BenchmarkSpec(
        target=group.target,
        subjects=tuple(subjects),
        inputs_digest=campaign.inputs_digest,
        outputs_digest=campaign.outputs_digest,
        threads=target_cores(group.target) or device.profile.logical_cores,
        timeout_s=BenchmarkSpec.timeout_s * (2 if per_op else 1),
        per_op=per_op,
    )


def keep_benchmark(
    store: Store, lease: LeaseRecord, results: Sequence[BenchmarkResult], error: str
) -> None:
    """Store what a benchmark found with the group that it is of.

    Args:
        store: where to.
        lease: the one the benchmark was done under.
        results: one for each subject.
        error: why there are none.
    """
    campaign = store.get_campaign(lease.campaign_id)
    if campaign.state is not CampaignState.FINISHING:
        return
    tuned = next((r for r in results if r.name == "tuned"), None)
    failed = error or (tuned.error if tuned else "the benchmark brought no result")
    changes: dict[str, object] = {}
    if failed:
        ended = store.list_leases(campaign.campaign_id, [LeaseState.DONE, LeaseState.FAILED])
        attempts = sum(_is_benchmark_of(one, lease.target, lease.fingerprint) for one in ended)
        log.warning("benchmark failed", campaign=campaign.campaign_id, why=failed)
        if attempts < BENCHMARK_ATTEMPTS:
            return
        changes["benchmark_error"] = failed
    else:
        changes["benchmark_s"] = {r.name: r.samples_s for r in results if r.samples_s}
        changes["max_abs_err"] = tuned.max_abs_err if tuned else None
        changes["subject_errors"] = {r.name: r.error for r in results if r.error}
        changes["profiled_s"] = {r.name: r.profiled_s for r in results if r.profiled_s}
        changes["between_s"] = {r.name: r.between_s for r in results if r.between_s}
        changes["ops"] = {r.name: r.ops for r in results if r.ops}
    groups = tuple(
        replace(g, **changes)  # type: ignore[arg-type]
        if (g.target, g.fingerprint) == (lease.target, lease.fingerprint)
        else g
        for g in campaign.groups
    )
    store.update_campaign(campaign.campaign_id, [CampaignState.FINISHING], groups=groups)


def _is_benchmark_of(lease: LeaseRecord, target: str, fingerprint: str) -> bool:
    return lease.kind is LeaseKind.BENCHMARK and (lease.target, lease.fingerprint) == (
        target,
        fingerprint,
    )
