"""How latencies of the same schedules compare when they are measured again."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from coordinator.state.trial_records import ReplayPair

CLOSE = 0.05
"""Relative difference up to which two medians are called equal."""


def compare(pairs: Sequence[ReplayPair]) -> dict[str, Any]:
    """Compare medians before and after, for each target and hardware they were measured on again.

    Returns:
        ``{"groups": [{"target", "fingerprint", "same_hardware", "planned", "compared",
        "verdicts", "median_ratio" (after over before), "share_within_5_percent", "kendall_tau"
        (mean over tasks), "tasks": [the same of each task]}]}``; a figure that too few pairs give
        is null.
    """
    groups: dict[tuple[str, str], list[ReplayPair]] = {}
    for pair in pairs:
        groups.setdefault((pair.key.target, pair.key.fingerprint), []).append(pair)
    return {"groups": [_group(*place, found) for place, found in sorted(groups.items())]}


def _group(target: str, fingerprint: str, pairs: Sequence[ReplayPair]) -> dict[str, Any]:
    tasks: dict[str, list[ReplayPair]] = {}
    for pair in pairs:
        tasks.setdefault(pair.key.workload, []).append(pair)
    by_task = [{"workload": workload, **_figures(same)} for workload, same in tasks.items()]
    taus = [task["kendall_tau"] for task in by_task if task["kendall_tau"] is not None]
    return {
        "target": target,
        "fingerprint": fingerprint,
        "same_hardware": all(
            (p.before_target, p.before_fingerprint) == (target, fingerprint) for p in pairs
        ),
        **_figures(pairs),
        # Over workloads of different sizes any order would look right.
        "kendall_tau": statistics.fmean(taus) if taus else None,
        "tasks": by_task,
    }


def _figures(pairs: Sequence[ReplayPair]) -> dict[str, Any]:
    both = [(p.before_s, p.after_s) for p in pairs if p.after_s is not None]
    ratios = [after / before for before, after in both]
    return {
        "planned": len(pairs),
        "compared": len(both),
        "verdicts": dict(Counter(p.verdict or "not measured" for p in pairs).most_common()),
        "median_ratio": statistics.median(ratios) if ratios else None,
        "share_within_5_percent": (
            sum(abs(ratio - 1) <= CLOSE for ratio in ratios) / len(ratios) if ratios else None
        ),
        "kendall_tau": kendall_tau(both),
    }


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau-b of two rankings (Kendall 1945), ``None`` where it is not defined."""
    concordant = discordant = ties_before = ties_after = 0
    for i, (a, b) in enumerate(pairs):
        for c, d in pairs[:i]:
            before, after = (a > c) - (a < c), (b > d) - (b < d)
            concordant += before * after > 0
            discordant += before * after < 0
            ties_before += before == 0
            ties_after += after == 0
    total = len(pairs) * (len(pairs) - 1) // 2
    scale = math.sqrt((total - ties_before) * (total - ties_after))
    return (concordant - discordant) / scale if scale else None
