"""The report's plots, drawn from a campaign's summary."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from coordinator.report.style import INK, STYLE

_TUNED = "#0b7a75"
_UNTUNED = "#c9ced6"
_REFERENCE = "#d1603d"
_TASKS_SHOWN = 16
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def draw_plots(group: dict[str, Any], folder: Path, prefix: str) -> dict[str, Path]:
    """Draw one group's plots.

    Args:
        group: a group of the summary.
        folder: where the PNG files go; made if missing.
        prefix: beginning of their names.

    Returns:
        Paths by title, in the order in which they are to be read. A plot without data is left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawings = {
        "Latency over time": _latency_over_time,
        "Tasks before and after": _tasks_before_and_after,
        "Predicted against measured": _predicted_against_measured,
    }
    made: dict[str, Path] = {}
    with plt.rc_context(STYLE):
        for title, draw in drawings.items():
            figure = draw(group)
            if figure is not None:
                path = folder / f"{prefix}{title.lower().replace(' ', '-')}.png"
                figure.savefig(path)
                plt.close(figure)
                made[title] = path
    return made


def _latency_over_time(group: dict[str, Any]) -> Any:
    curve = group["curve"]
    if not curve:
        return None
    figure, axes = plt.subplots(figsize=(7.2, 3.6))
    minutes = [p["seconds"] / 60 for p in curve]
    axes.step(
        minutes,
        [p["latency_ms"] for p in curve],
        where="post",
        color=_TUNED,
        linewidth=2,
        label="sum of best task latencies",
    )
    # Each label where the curve is not: it begins high on the left and ends low on the right.
    for name, color, where, side in (
        ("untuned", "#8a94a3", minutes[-1], "right"),
        ("onnxruntime", _REFERENCE, minutes[0], "left"),
        ("tuned", _TUNED, minutes[0], "left"),
    ):
        latency = group["latency_ms"].get(name)
        if latency is not None:
            axes.axhline(latency, color=color, linestyle="--", linewidth=1)
            axes.annotate(
                f"{name}, end to end: {latency:.3g} ms",
                (where, latency),
                textcoords="offset points",
                xytext=(0, 3),
                ha=side,
                color=color,
                fontsize=8,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(_PLAIN)
    axes.set_xlabel("minutes since the campaign was created")
    axes.set_ylabel("network latency, ms")
    axes.legend(frameon=False, loc="best", fontsize=8)
    return figure


def _tasks_before_and_after(group: dict[str, Any]) -> Any:
    tasks = [t for t in group["tasks"] if t["tuned_us"] is not None]
    if not tasks:
        return None
    tasks.sort(key=lambda t: t["weight"] * (t["untuned_us"] or t["tuned_us"]), reverse=True)
    tasks = tasks[:_TASKS_SHOWN][::-1]
    figure, axes = plt.subplots(figsize=(7.2, 0.34 * len(tasks) + 1.1))
    rows = range(len(tasks))
    before = [t["weight"] * (t["untuned_us"] or t["tuned_us"]) / 1e3 for t in tasks]
    after = [t["weight"] * t["tuned_us"] / 1e3 for t in tasks]
    # Points, not bars: on a logarithmic axis a bar's length says nothing.
    axes.hlines(rows, after, before, color=_UNTUNED, linewidth=3)
    axes.scatter(before, rows, color="#8a94a3", s=34, zorder=3, label="untuned")
    axes.scatter(after, rows, color=_TUNED, s=34, zorder=3, label="tuned")
    for row, task in zip(rows, tasks, strict=True):
        if task["speedup"]:
            axes.annotate(
                f"{task['speedup']:.1f}x",
                (max(before[row], after[row]), row),
                textcoords="offset points",
                xytext=(7, 0),
                va="center",
                fontsize=8,
                color=INK,
            )
    axes.set_yticks(list(rows), [f"{t['name']} x{t['weight']}" for t in tasks], fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(_PLAIN)
    axes.set_xlabel("milliseconds in one run of the network (weight times latency)")
    axes.grid(axis="y", visible=False)
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return figure


def _predicted_against_measured(group: dict[str, Any]) -> Any:
    """Compare ranks within each task: scores order candidates, they are not times."""
    lists: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for p in group["predictions"]:
        lists[p["workload"], p["model_version"]].append(p)
    points: list[tuple[float, float]] = []
    for rows in lists.values():
        if len(rows) < 4:
            continue
        scores = _ranks([p["predicted"] for p in rows])
        speeds = _ranks([-p["latency_us"] for p in rows])
        points.extend(zip(scores, speeds, strict=True))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(4.2, 4.2))
    axes.plot([0, 1], [0, 1], color=_REFERENCE, linewidth=1, linestyle="--")
    axes.scatter(*zip(*points, strict=True), s=10, color=_TUNED, alpha=0.45, linewidths=0)
    axes.set_xlabel("rank by predicted score (1 = best)")
    axes.set_ylabel("rank by measured speed (1 = fastest)")
    axes.set_aspect("equal")
    return figure


def _ranks(values: list[float]) -> list[float]:
    """Return each value's rank, 0 for the lowest and 1 for the highest."""
    ranks = [0.0] * len(values)
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        ranks[index] = rank / (len(values) - 1)
    return ranks
