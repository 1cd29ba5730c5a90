"""The report as one HTML page that opens anywhere, pictures included."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CSS = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2933;max-width:56rem;margin:2rem auto}
body{padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin-top:2.4rem;border-bottom:1px solid #d9dde3;padding-bottom:.2rem}
.sub{color:#66717f}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #e6e9ee;text-align:right}
th:first-child,td:first-child{text-align:left}th{color:#66717f;font-weight:600}
.cards{display:flex;gap:1rem;flex-wrap:wrap;margin:1rem 0}
.card{border:1px solid #d9dde3;border-radius:.5rem;padding:.7rem 1.1rem;min-width:9rem}
.card b{display:block;font-size:1.5rem}.tuned b{color:#0b7a75}
img{max-width:100%}code{background:#f2f4f7;padding:.1rem .3rem;border-radius:.2rem}
.bad{color:#b3261e}
"""

_ABOUT_TASKS = (
    "One call of each. Untuned here is the same channels-last program without a schedule; the "
    "untuned network above keeps the layout it came in."
)


def render_page(
    summary: Mapping[str, Any], plots: Mapping[str, Mapping[str, Path]], online: float | None
) -> str:
    """Render the report.

    Args:
        summary: the campaign's summary.
        plots: paths of PNG files by title, by the group's fingerprint and target.
        online: share of pairs that scores ranked right before they were measured.

    Returns:
        A complete HTML document.
    """
    minutes = summary["tuning_s"] / 60
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>TuneFleet: {_text(summary['model'])}</title><style>{_CSS}</style>",
        f"<h1>{_text(summary['model'])}</h1>",
        (
            f"<p class=sub>campaign {_text(summary['campaign_id'])} &middot; "
            f"{summary['trials']} trials ({summary['trials_repeated']} of them repetitions) "
            f"in {minutes:.1f} minutes &middot; "
            f"TuneFleet {_text(summary['tunefleet_version'])}</p>"
        ),
    ]
    if summary["tuning_ended"]:
        parts.append(f"<p>Tuning ended: {_text(summary['tuning_ended'])}.</p>")
    for group in summary["groups"]:
        parts.append(_group(group, plots.get(group_key(group), {})))
    parts.append(_cost_model(summary["cost_model"], online))
    parts.append(_costs(summary))
    return "\n".join(parts) + "</html>\n"


def group_key(group: Mapping[str, Any]) -> str:
    """Name a group of the summary."""
    return f"{group['fingerprint']}/{json.dumps(group['target'], sort_keys=True)}"


def _group(group: Mapping[str, Any], plots: Mapping[str, Path]) -> str:
    target = group["target"]
    devices = ", ".join(group["devices"]) or "no device"
    parts = [
        (
            f"<h2>{_text(devices)}</h2><p class=sub><code>{_text(json.dumps(target))}</code> "
            f"hardware {_text(group['fingerprint'])}</p>"
        )
    ]
    latency = group["latency_ms"]
    if latency:
        cards = [
            f"<div class='card {name}'>{name}<b>{latency[name]:.3g} ms</b>{_against(latency, name)}"
            "</div>"
            for name in ("untuned", "tuned", "onnxruntime")
            if name in latency
        ]
        parts.append(f"<div class=cards>{''.join(cards)}</div>")
    if group["max_abs_err"] is not None:
        parts.append(
            "<p>Largest absolute difference of the tuned module's outputs to the reference's: "
            f"<b>{group['max_abs_err']:.2e}</b>.</p>"
        )
    if group["benchmark_error"]:
        parts.append(f"<p class=bad>Not timed end to end: {_text(group['benchmark_error'])}</p>")
    for title, path in plots.items():
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f"<h3>{title}</h3><img alt='{title}' src='data:image/png;base64,{data}'>")
    parts.append(_tasks(group["tasks"]))
    return "\n".join(parts)


def _against(latency: Mapping[str, float], name: str) -> str:
    if name == "tuned" or "tuned" not in latency:
        return ""
    ratio = latency[name] / latency["tuned"]
    said = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"
    return f"<span class=sub>tuned is {said}</span>"


def _tasks(tasks: list[Mapping[str, Any]]) -> str:
    ordered = sorted(tasks, key=lambda t: t["weight"] * (t["tuned_us"] or 0), reverse=True)
    rows = [
        [
            _text(t["name"]),
            str(t["weight"]),
            _number(t["untuned_us"]),
            _number(t["tuned_us"]),
            _number(t["speedup"], "x"),
            _number(t["gflops"] or None),
            str(t["trials"]),
        ]
        for t in ordered
    ]
    head = ["task", "weight", "untuned, µs", "tuned, µs", "speed-up", "GFLOP/s", "trials"]
    return f"<h3>Tasks</h3><p class=sub>{_ABOUT_TASKS}</p>" + _table(head, rows)


def _cost_model(cost_model: Mapping[str, Any], online: float | None) -> str:
    rows = [
        [
            _text(v["version"]),
            _text(v["parent"] or "none"),
            "yes" if v["promoted"] else "no",
            str(v["trials"]),
            _number(v["metrics"].get("pca_heldout")),
            _number(v["training_s"]),
            _text(v["why"]),
        ]
        for v in cost_model["versions"]
    ]
    said = ""
    if online is not None:
        said = (
            "<p>Of pairs of candidates of one task, scores given before measuring ranked "
            f"<b>{online:.1%}</b> right (candidates chosen by the same scores, which are harder to "
            "tell apart than random ones).</p>"
        )
    head = ["version", "parent", "promoted", "trials", "held-out PCA", "training, s", "why"]
    return "<h2>Cost model</h2>" + said + _table(head, rows)


def _costs(summary: Mapping[str, Any]) -> str:
    verdicts = [[_text(n), str(c)] for n, c in sorted(summary["verdicts"].items())]
    phases = [[_text(n), f"{s:.1f}"] for n, s in sorted(summary["phase_seconds"].items())]
    return (
        "<h2>What it took</h2>"
        + _table(["verdict", "trials"], verdicts)
        + _table(["phase on the devices", "seconds"], phases)
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{h}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _number(value: float | None, unit: str = "") -> str:
    if value is None:
        return "n/a"
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}"


def _text(value: object) -> str:
    return html.escape(str(value))
