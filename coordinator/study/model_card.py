"""The card beside a model: what it is, what it learned from and how, how well, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coordinator.costmodel.feature_sets import STORES, feature_set
from tunefleet.client.wording import duration, short_target
from tunefleet.features import HARDWARE_FEATURES
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE

_METRICS = {
    "pca": "pairs ordered right, weighted by trials",
    "pca_by_task": "the same, each task counting once",
    "pca_resolved": "pairs further apart than their noise",
    "top1": "best latency over that of the best-scored candidate",
    "top5": "best latency over the best among the five best-scored",
}

_WHAT = f"""Orders candidate schedules of one tensor program for one device, given `features`
[B, L, {{width}}] (a row a {{token}}, L at most {{most}}), `mask` [B, L] and `hardware`
[B, {len(HARDWARE_FEATURES)}] (what the device is and measured of itself, NaN where unknown), all
raw: normalisation is part of the graph. `score` is higher for faster programs, and `spread` says
how far the heads of its ensemble disagree. Scores compare candidates of one task on one device,
and mean nothing beyond."""

_FILES = f"""`{ONNX_FILE}` is what {{ranks}} with, `{CHECKPOINT_FILE}` what training goes on from
(`tunefleet model train --from`), `{ABOUT_FILE}` holds this page's figures for programs."""

_HELD_OUT = """One candidate in five, chosen by its hash, is never learned from, by this model or
any that is fine-tuned from it. The figures are of those: other candidates of tasks that it knows.
On workloads and devices that it has not met it does worse; `tunefleet study` tells how much. In
brackets are 95 % intervals from resampling workloads."""

_LIMITS = """It predicts an order, not a latency. What it was not trained on
(operators, targets, caches and cores unlike those above) it ranks by likeness. {seen}
Whoever tunes with it measures what it picks, so that a bad guess costs time and never
correctness."""


_SEEN = {
    "stores": "It knows CPUs alone, and schedules from MetaSchedule's design space only.",
    "steps": "Agents cannot rank with it: they compute the values of buffer stores. It knows only "
    "how a schedule was made, not what came of it, and schedules of no other tuner than those "
    "above.",
}


def model_card(about: Mapping[str, Any], command: str) -> str:
    """Write a model card in Markdown.

    Args:
        about: what ``model.json`` will hold.
        command: that makes the model again.
    """
    training, data = about["training"], about["dataset"]
    features = feature_set(about["features"])
    ranks = "agents rank" if features is STORES else "one ranks"
    parent = about["parent"]
    effort = (
        f"{training['steps']:,} steps with seed {training['config']['seed']} in "
        f"{duration(training['seconds'])} (processes: {training['processes']}, threads of each: "
        f"{training['config']['threads']}). The same command on the same machine gives the same "
        "weights."
    )
    parts = [
        f"# {about['name']}: a cost model for tensor programs",
        _WHAT.format(width=features.width, token=features.token, most=features.most),
        f"It is TuneFleet's attention model with {about['parameters']:,} parameters, for feature "
        f"schema `{about['feature_schema']}`, trained by TuneFleet {about['release']}"
        + (f", on from the model {parent['name']}." if parent else ", from scratch."),
        _FILES.format(ranks=ranks),
        "## What it learned from",
        f"{data['name']} (digest `{data['digest']}`): {training['rows_trained']:,} of "
        f"{data['trials']:,} trials of {data['workloads']:,} workloads, for "
        + ", ".join(f"`{short_target(target)}`" for target in data["targets"])
        + ".",
        *([f"> {data['description']}"] if data["description"] else []),
        *data["notes"],
        *_unusable(data["unusable"]),
        *_earlier(about),
        "## How",
        f"```\n{command}\n```",
        effort,
        "## How well it ranks",
        _table(about["metrics"], about["metrics_trained"]),
        _HELD_OUT,
        *_short_lists(about["held_out"]),
        "## Limits",
        _LIMITS.format(seen=_SEEN[features.name]),
        "## Licence",
        f"That of the data: {data['licence'] or 'none was named'}.",
    ]
    return "\n\n".join(parts) + "\n"


def _unusable(unusable: Mapping[str, Any]) -> list[str]:
    if not unusable["count"]:
        return []
    return [f"{unusable['count']:,} of what was read could not be used and is left out."]


def _short_lists(held_out: Mapping[str, float] | None) -> list[str]:
    if held_out is None:
        return []
    counts = (
        f"Held out are {held_out['trials']:,} trials of {held_out['tasks']:,} tasks, "
        f"{held_out['median_trials_a_task']:g} each at the median."
    )
    return [f"{counts} A task with five or fewer has a top-5 of 1 whatever the model."]


def _earlier(about: Mapping[str, Any]) -> list[str]:
    if about["trained_on"] is None:
        return ["What the model it goes on from learned from is not known."]
    names = [f"{d['name']} (`{d['digest']}`)" for d in about["trained_on"][:-1]]
    return [f"The model it goes on from learned from {', '.join(names)}."] if names else []


def _table(held_out: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    lines = ["| figure | held out | learned from |", "| --- | --- | --- |"]
    for name, told in _METRICS.items():
        cells: Sequence[str] = [_figure(of.get(name)) for of in (held_out, trained)]
        lines.append(f"| {name}: {told} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def _figure(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return "-"
    low, high = figure.get("low"), figure.get("high")
    bounds = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{figure['value']:.3f}{bounds}"
