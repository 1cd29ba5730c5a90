"""Draws what studies found."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

from coordinator.report.style import STYLE
from coordinator.study.studies.base import Curve

_COLOURS = ("#0b7a75", "#d1603d", "#3d5a80", "#8f5aa8", "#7a7f87", "#c9a227", "#1f2933")


def draw_curves(curves: list[Curve], folder: Path) -> list[Path]:
    """Draw each curve as a PNG file with its intervals shaded.

    Returns:
        The files, in the curves' order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_draw(curve, folder / f"{curve.name}.png") for curve in curves]


def _draw(curve: Curve, path: Path) -> Path:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.0))
        for number, (name, points) in enumerate(curve.series.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            ordered = sorted(points, key=lambda point: point[0])
            x = [place for place, _ in ordered]
            axes.plot(x, [i.value for _, i in ordered], "o-", color=colour, label=name)
            axes.fill_between(
                x,
                [i.low for _, i in ordered],
                [i.high for _, i in ordered],
                color=colour,
                alpha=0.12,
                linewidth=0,
            )
        if curve.logarithmic:
            axes.set_xscale("log", base=2)
            places = sorted({place for points in curve.series.values() for place, _ in points})
            axes.set_xticks(places)
            axes.minorticks_off()
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
        axes.legend(frameon=False)
        figure.savefig(path)
        plt.close(figure)
    return path
