"""How well cost models rank, as rich renderables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunefleet.cli.dataset_options import reading_text
from tunefleet.cli.tables import details, make_table
from tunefleet.client.wording import latency, short_target

FIGURES = {
    "pca": ("PCA", "pairs ordered right, weighted by trials"),
    "pca_by_task": ("PCA by task", "the same, each task counting once"),
    "pca_resolved": ("PCA beyond noise", "pairs further apart than their noise"),
    "top1": ("top-1", "best latency over that of the best-scored candidate"),
    "top5": ("top-5", "best latency over the best among the five best-scored"),
}
"""Names and meanings of what models are judged by."""
_RANKS_BY = {"stores": "buffer stores", "steps": "schedule steps"}
_VERDICT_STYLES = {"ahead": "green", "behind": "red"}
_SOURCES_SHOWN = 3


def training_sheet(result: Mapping[str, Any]) -> RenderableType:
    """Show what a training made."""
    training, data, parent = result["training"], result["dataset"], result["parent"]
    learned_from = (
        f"{training['rows_trained']:,} of {data['trials']:,} trials of "
        f"{data['workloads']:,} workloads"
    )
    about = details(
        ("model", result["name"]),
        ("goes on from", parent["name"] if parent else "nothing"),
        ("learned from", learned_from),
        ("ranks by", _RANKS_BY[result["features"]]),
        ("steps", f"{training['steps']:,}"),
        ("ONNX against torch", f"{result['onnx_max_diff']:.1e} at the most"),
    )
    table = make_table("figure", "held out", "learned from", "what it is")
    for name, (label, meaning) in FIGURES.items():
        cells = [_figure(result[of].get(name)) for of in ("metrics", "metrics_trained")]
        table.add_row(label, *cells, meaning)
    return Group(about, Text(), table, reading_text(data["notes"], data["unusable"]))


def evaluation_sheet(result: Mapping[str, Any]) -> RenderableType:
    """Show how well a model ranks a dataset."""
    [model] = result["models"]
    table = make_table("figure", model["name"], "what it is")
    for name, (label, meaning) in FIGURES.items():
        table.add_row(label, _figure(model["metrics"][name]), meaning)
    tasks = [_tasks(model["tasks"])] if "tasks" in model else []
    return Group(_judged(result), Text(), table, *tasks, _notes(result))


def comparison_sheet(result: Mapping[str, Any]) -> RenderableType:
    """Show two models beside each other, and say in words which is ahead."""
    first, second = result["models"]
    table = make_table("figure", first["name"], second["name"], "difference", "verdict")
    for name, (label, _) in FIGURES.items():
        verdict = result["verdict"][name]
        table.add_row(
            label,
            *(_figure(model["metrics"][name]) for model in (first, second)),
            _figure(result["difference"][name], signed=True),
            Text(verdict, style=_VERDICT_STYLES.get(verdict, "")),
        )
    return Group(_judged(result), Text(), table, Text(headline(result)), _notes(result))


def headline(result: Mapping[str, Any]) -> str:
    """Say in a sentence what a comparison tells, by PCA."""
    first, second = (model["name"] for model in result["models"])
    verdict, difference = (
        result["verdict"]["pca"],
        _figure(result["difference"]["pca"], signed=True),
    )
    told = {"ahead": "is ahead of", "behind": "is behind"}.get(verdict)
    if told is None:
        return f"Between {first} and {second}: {verdict}; PCA differs by {difference}."
    return f"{first} {told} {second}: PCA differs by {difference}."


def _judged(result: Mapping[str, Any]) -> Table:
    judged, data = result["judged"], result["dataset"]
    which = "held out of every training" if judged["rows"] == "held_out" else "all there are"
    judged_by = (
        f"{judged['trials']:,} trials ({which}) of {judged['tasks']:,} tasks, "
        f"{judged['workloads']:,} workloads"
    )
    by = ", ".join(f"{m['name']} by {_RANKS_BY[m['features']]}" for m in result["models"])
    return details(
        ("ranked", by),
        ("dataset", f"{data['name']}, {data['trials']:,} trials"),
        ("judged by", judged_by),
        ("targets", ", ".join(short_target(target) for target in data["targets"])),
    )


def _tasks(tasks: Sequence[Mapping[str, Any]]) -> Table:
    numbers = ("trials", "PCA", "beyond noise", "top-1", "top-5", "best")
    table = make_table("workload", "of", "target", *numbers, right=numbers)
    for task in tasks:
        left_out = len(task["sources"]) - _SOURCES_SHOWN
        sources = ", ".join(task["sources"][:_SOURCES_SHOWN])
        table.add_row(
            task["workload"],
            sources + (f" and {left_out} more" if left_out > 0 else ""),
            short_target(task["target"]),
            f"{task['trials']:,}",
            *(_number(task[name]) for name in ("pca", "pca_resolved", "top1", "top5")),
            latency(task["best_s"]),
        )
    return table


def _notes(result: Mapping[str, Any]) -> Text:
    return reading_text(result["notes"], result["unusable"])


def _figure(figure: Mapping[str, float | None] | None, *, signed: bool = False) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    form = "+.3f" if signed else ".3f"
    low, high = figure.get("low"), figure.get("high")
    bounds = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
    return f"{figure['value']:{form}}{bounds}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
