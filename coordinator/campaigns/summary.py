"""Everything a report says about a campaign, as JSON. Units are in the names."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.campaigns.planner import tasks_of
from coordinator.campaigns.scheduler import estimated_baseline_s, estimated_latency_s
from coordinator.state.estimates import Estimates
from coordinator.state.records import CampaignRecord, GroupRecord, LeaseState, TaskKey, TaskProgress
from coordinator.state.store import Store
from coordinator.state.trial_records import LatencyPoint
from tunefleet import __version__


def campaign_summary(store: Store, campaign_id: str) -> dict[str, Any]:
    """Summarise a campaign: its groups with their tasks and curves, its cost models, its costs."""
    campaign = store.get_campaign(campaign_id)
    progress = store.task_progress(campaign_id)
    points = store.latency_points(campaign_id)
    devices = {d.device_id: d for d in store.list_devices()}
    leases = store.list_leases(campaign_id)
    phases: Counter[str] = Counter()
    for lease in leases:
        phases.update(lease.phase_seconds)
    return {
        "tunefleet_version": __version__,
        "campaign_id": campaign_id,
        "name": campaign.spec.name,
        "model": campaign.spec.model_filename,
        "created_at_unix_s": campaign.created_at_unix_s,
        "tuning_s": campaign.tuning_s,
        "min_gain": campaign.spec.min_gain,
        "tuning_ended": campaign.tuning_ended,
        "trials": len(points),
        "trials_repeated": len(points) - len({(p.key, p.candidate) for p in points}),
        "rounds": sum(1 for lease in leases if lease.state is LeaseState.DONE),
        "verdicts": dict(Counter(p.verdict for p in points)),
        "phase_seconds": dict(phases),
        "cost_model": _cost_models(store, campaign),
        "groups": [
            _group(
                group,
                tasks_of(progress, group),
                [p for p in points if _in_group(p.key, group)],
                campaign,
                sorted(
                    {
                        devices[lease.device_id].name
                        for lease in leases
                        if (lease.target, lease.fingerprint) == (group.target, group.fingerprint)
                        and lease.device_id in devices
                    }
                ),
            )
            for group in campaign.groups
        ],
    }


def _cost_models(store: Store, campaign: CampaignRecord) -> dict[str, Any]:
    versions = [
        v
        for v in reversed(store.list_model_versions())
        if v.created_at_unix_s >= campaign.created_at_unix_s
    ]
    current = store.current_model()
    return {
        "current": current.version if current else "",
        "versions": [
            {
                "version": v.version,
                "parent": v.parent,
                "promoted": v.promoted,
                "why": v.why,
                "trials": v.trials,
                "metrics": dict(v.metrics),
                "training_s": v.training_s,
            }
            for v in versions
        ],
        "pca": current.metrics.get("pca_heldout") if current else None,
    }


def _group(
    group: GroupRecord,
    tasks: Sequence[TaskProgress],
    points: Sequence[LatencyPoint],
    campaign: CampaignRecord,
    devices: Sequence[str],
) -> dict[str, Any]:
    return {
        "target": json.loads(group.target),
        "fingerprint": group.fingerprint,
        "devices": list(devices),
        "trials": len(points),
        "latency_ms": _milliseconds(group.benchmark_s),
        "samples_ms": {n: [s * 1e3 for s in v] for n, v in group.benchmark_s.items()},
        "max_abs_err": group.max_abs_err,
        "benchmark_error": group.benchmark_error,
        "estimated_ms": _ms(estimated_latency_s(tasks)),
        "estimated_untuned_ms": _ms(estimated_baseline_s(tasks)),
        "tasks": [_task(t) for t in tasks],
        "curve": _curve(tasks, points, campaign.created_at_unix_s),
        "predictions": _predictions(points),
    }


def _task(progress: TaskProgress) -> dict[str, Any]:
    best, baseline, flops = progress.best_s, progress.baseline_s, progress.task.flops
    return {
        "name": progress.task.name,
        "workload": progress.task.key.workload,
        "weight": progress.task.weight,
        "flops": flops,
        "trials": progress.trials,
        "measured": progress.measured,
        "exhausted": progress.task.exhausted,
        "untuned_us": None if baseline is None else baseline * 1e6,
        "tuned_us": None if best is None else best * 1e6,
        "speedup": baseline / best if baseline and best else None,
        "gflops": flops / best / 1e9 if best else None,
    }


def _curve(
    tasks: Sequence[TaskProgress], points: Sequence[LatencyPoint], begin: float
) -> list[dict[str, float]]:
    """Estimate the network's latency after each trial; a task counts as untuned until measured."""
    best: dict[TaskKey, float] = {}
    weights = {t.task.key: t.task.weight for t in tasks}
    for task in tasks:
        start = task.baseline_s if task.baseline_s is not None else task.best_s
        if start is None:
            return []
        best[task.task.key] = start
    curve: list[dict[str, float]] = []
    start_s = dict(best)
    estimates = {key: Estimates() for key in best}
    for number, point in enumerate(points, 1):
        if point.latency_s is not None and point.key in best:
            known = estimates[point.key]
            known.add(point.candidate, point.latency_s)
            best[point.key] = min(start_s[point.key], known.best_s or math.inf)
        estimate = sum(weights[key] * latency for key, latency in best.items())
        curve.append(
            {
                "trials": number,
                "seconds": point.received_at_unix_s - begin,
                "latency_ms": estimate * 1e3,
            }
        )
    return curve


def _predictions(points: Sequence[LatencyPoint]) -> list[dict[str, Any]]:
    """Pair each score with the measurement that came after it, task by task."""
    return [
        {
            "workload": p.key.workload,
            "model_version": p.model_version,
            "predicted": p.predicted,
            "latency_us": p.latency_s * 1e6,
        }
        for p in points
        if p.predicted is not None and p.latency_s is not None
    ]


def _in_group(key: TaskKey, group: GroupRecord) -> bool:
    return (key.target, key.fingerprint) == (group.target, group.fingerprint)


def _milliseconds(samples: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) * 1e3 for name, values in samples.items() if values}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
