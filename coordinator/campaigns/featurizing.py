"""Features of trials that came without: which agent computes which, and what came of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import structlog

from coordinator.campaigns.attempts import failed_attempts
from coordinator.state.records import CampaignRecord, LeaseRecord, TaskKey
from coordinator.state.store import Store
from tunefleet.lease_conversions import lease_from_proto
from tunefleet.leases import FeaturizedTrace, FeaturizeSpec, NamedTrace
from tunefleet.trials import ProgramFeatures
from tunefleet.v1 import lease_pb2

log = structlog.get_logger()

FEATURIZE_TRACES = 64
"""Schedules of one lease: some seconds' work, whose features fit into one message."""

TRACES_BYTES = 2 * 2**20
"""Bytes of schedules in one lease, far below what a message may have."""

FEATURIZE_ATTEMPTS = 2
"""A lease that failed is tried once more, by another agent perhaps."""


def choose_featurizing(
    store: Store, campaign: CampaignRecord, busy: Collection[TaskKey]
) -> tuple[TaskKey, FeaturizeSpec] | None:
    """Choose schedules whose features are missing.

    Args:
        store: where their trials are.
        campaign: the campaign that imported them.
        busy: tasks that another agent is at work on.

    Returns:
        Their task and the work, or ``None`` where nothing is to be done now.
    """
    records = store.unfeatured(campaign.campaign_id, FEATURIZE_TRACES, busy)
    if not records:
        return None
    key = records[0].key
    digests = {
        p.task.key: p.task.workload_digest for p in store.task_progress(campaign.campaign_id)
    }
    traces = fitting([NamedTrace(r.trial.candidate, r.trial.trace) for r in records])
    return key, FeaturizeSpec(key.workload, digests[key], key.target, traces)


def fitting(traces: Sequence[NamedTrace]) -> tuple[NamedTrace, ...]:
    """Return as many of the first traces as one lease may bring, one at the least."""
    size, kept = 0, list[NamedTrace]()
    for trace in traces:
        size += len(trace.trace)
        if kept and size > TRACES_BYTES:
            break
        kept.append(trace)
    return tuple(kept)


def keep_featurized(
    store: Store, lease: LeaseRecord, results: Sequence[FeaturizedTrace], error: str
) -> None:
    """Keep what an agent computed; what it could not compute is tried once more at the most.

    Args:
        store: where the trials are.
        lease: the lease, which has ended.
        results: one for each schedule, where the work was done.
        error: why it was not.
    """
    work = lease_from_proto(lease_pb2.Lease.FromString(lease.message)).work
    assert isinstance(work, FeaturizeSpec)
    found: Mapping[str, FeaturizedTrace] = {r.candidate: r for r in results}
    features: dict[str, ProgramFeatures] = {}
    impossible: dict[str, str] = {}
    for wanted in work.traces:
        result = found.get(wanted.candidate)
        if result is not None and result.features is not None:
            features[wanted.candidate] = result.features
        elif result is not None:
            impossible[wanted.candidate] = result.error or "no reason was given"
        elif failed_attempts(store, lease) >= FEATURIZE_ATTEMPTS:
            impossible[wanted.candidate] = error or "the agent brought no result"
    if impossible:
        log.warning(
            "no features", workload=lease.workload, schedules=len(impossible), why=_one(impossible)
        )
    key = TaskKey(lease.workload, lease.target, lease.fingerprint)
    store.put_features(key, features, impossible)


def _one(reasons: Mapping[str, str]) -> str:
    return next(iter(reasons.values()))
