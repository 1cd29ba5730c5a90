"""Draws latency over wall time, both sides in one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from coordinator.report.style import STYLE
from scripts.benches.quality_curve import Run

_COLOURS = {"stock": "#d1603d", "ours": "#0b7a75", "ours untrained": "#8fb8b5"}
_MARKS = {"onnxruntime": "#3d5a80"}
_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def draw_runs(
    title: str, runs: Mapping[str, Run], measured_s: Mapping[str, float], path: Path
) -> None:
    """Draw what each run's network was estimated to take over time, and what it took in the end.

    Args:
        title: of the picture.
        runs: by ``stock``, ``ours`` and ``ours untrained``.
        measured_s: end-to-end latencies in seconds, by the same names, and ``onnxruntime``'s.
        path: of the PNG file.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.2))
        longest = max(run.seconds for run in runs.values())
        for name, run in runs.items():
            points = run.curve()
            colour = _COLOURS[name]
            if points:
                times = [p.seconds for p in points] + [run.seconds]
                latencies = [p.latency_s * 1e3 for p in points] + [points[-1].latency_s * 1e3]
                label = f"{name}, sum of best task latencies"
                axes.step(times, latencies, where="post", color=colour, linewidth=2, label=label)
            if name in measured_s:
                end = [run.seconds], [measured_s[name] * 1e3]
                axes.plot(*end, "o", color=colour, markersize=7, label=f"{name}, end to end")
        for name, colour in _MARKS.items():
            if name in measured_s:
                axes.axhline(measured_s[name] * 1e3, color=colour, linestyle="--", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(right=longest * 1.1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(_PLAIN)
            axis.set_minor_formatter(NullFormatter())
        axes.set(title=title, xlabel="seconds since the model was handed over", ylabel="ms per run")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.savefig(path)
        plt.close(figure)
