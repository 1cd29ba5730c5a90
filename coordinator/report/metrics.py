"""How well scores foretold the measurements that came after them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any


def online_pca(predictions: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the share of pairs of one task that were ranked as they turned out.

    Only scores of the same model version are compared; each was given before its candidate was
    measured, so nothing here was trained on. Pairs closer than 2 % are left out: that is the noise
    of the measurement.

    Args:
        predictions: values with ``workload``, ``model_version``, ``predicted`` (higher is faster)
            and ``latency_us``.

    Returns:
        A share between 0 and 1, or ``None`` where there is no pair to compare.
    """
    lists: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for p in predictions:
        lists[p["workload"], p["model_version"]].append((p["predicted"], p["latency_us"]))
    right = total = 0.0
    for rows in lists.values():
        for i, (score, latency) in enumerate(rows):
            for other_score, other_latency in rows[:i]:
                if abs(latency - other_latency) < 0.02 * min(latency, other_latency):
                    continue
                total += 1
                if score == other_score:
                    right += 0.5
                else:
                    right += (score > other_score) == (latency < other_latency)
    return right / total if total else None
