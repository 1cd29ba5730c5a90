"""Counts of datasets, as rich renderables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tunefleet.cli.tables import details, make_table
from tunefleet.client.datasets import DatasetGroup, DatasetStats
from tunefleet.client.wording import latency, short_target

_SOURCES_SHOWN = 30
_NAMES_SHOWN = 5
_NUMBERS = ("trials", "with latency", "workloads", "fastest", "slowest")


def stats_sheet(stats: DatasetStats) -> RenderableType:
    """Show a dataset's counts."""
    about = details(
        ("trials", f"{stats.trials:,}"),
        ("with a latency", f"{stats.measured:,}"),
        ("with features", f"{stats.featured:,}"),
        ("workloads", f"{stats.workloads:,}"),
        ("latencies", f"{latency(stats.fastest_s)} to {latency(stats.slowest_s)}"),
        ("verdicts", ", ".join(f"{k} {n:,}" for k, n in stats.verdicts.items()) or "none"),
    )
    if not stats.trials:
        return about
    devices = make_table("device", "CPU", "fingerprint", "trials", "workloads", right=_NUMBERS)
    for d in stats.devices:
        devices.add_row(d.name, d.cpu_model, d.fingerprint, f"{d.trials:,}", f"{d.workloads:,}")
    left_out = len(stats.sources) - _SOURCES_SHOWN
    return Group(
        about,
        Text(),
        _groups("target", [(short_target(g.name), g) for g in stats.targets]),
        _groups("source", [(g.name or "unknown", g) for g in stats.sources[:_SOURCES_SHOWN]]),
        Text(f"and {left_out} sources more\n" if left_out > 0 else "", style="dim"),
        devices,
    )


def about_sheet(about: Mapping[str, Any]) -> RenderableType:
    """Show what a dataset's files say of themselves."""
    made = datetime.fromtimestamp(about["created_unix_s"], UTC)
    missing = [name for name in ("workloads", "devices") if not about[f"has_{name}"]]
    return details(
        ("description", about["description"] or "none"),
        ("licence", about["licence"] or "none named"),
        ("written", f"{made:%Y-%m-%d} by TuneFleet {about['release']}"),
        ("feature schema", about["feature_schema"]),
        ("missing tables", ", ".join(missing) or "none"),
    )


def prune_sheet(
    before: DatasetStats, kept: DatasetStats, left_out: Mapping[str, int]
) -> RenderableType:
    """Show what pruning kept, of what there was."""
    share = f"{kept.trials / before.trials:.1%}" if before.trials else "-"
    about = details(
        ("kept", f"{kept.trials:,} of {before.trials:,} trials ({share})"),
        ("workloads", f"{kept.workloads:,} of {before.workloads:,}"),
        ("not judged", ", ".join(f"{why} {n:,}" for why, n in left_out.items()) or "none"),
    )
    targets = [(short_target(g.name), g) for g in before.targets]
    sources = [(g.name or "unknown", g) for g in before.sources[:_SOURCES_SHOWN]]
    left = len(before.sources) - _SOURCES_SHOWN
    verdicts = make_table("verdict", "trials", "kept", right=("trials", "kept"))
    for verdict, count in before.verdicts.items():
        verdicts.add_row(verdict, f"{count:,}", f"{kept.verdicts.get(verdict, 0):,}")
    return Group(
        about,
        Text(),
        _kept("target", targets, kept.targets),
        verdicts,
        _kept("source", sources, kept.sources),
        Text(f"and {left} sources more\n" if left > 0 else "", style="dim"),
    )


def import_sheet(result: Mapping[str, Any]) -> RenderableType:
    """Show what came of an import."""
    sheet = details(
        ("new trials", f"{result['new']:,}"),
        ("known already", f"{result['known']:,}"),
        ("refused", f"{result['rejected']:,}"),
    )
    if not result["rejected"]:
        return sheet
    names = result["rejected_names"]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return Group(
        sheet,
        refusals_text("Refused were", result["rejected"], result["refusals"]),
        Text(f"among them {shown}", style="dim"),
    )


def replay_sheet(result: Mapping[str, Any]) -> RenderableType:
    """Show how latencies compare before and after a replay."""
    right = ("compared", "median ratio", "within 5 %", "Kendall tau")
    table = make_table(
        "target", "fingerprint", "measured before on", *right, "verdicts", right=right
    )
    for g in result["groups"]:
        table.add_row(
            short_target(g["target"]),
            g["fingerprint"],
            "the same" if g["same_hardware"] else "others",
            f"{g['compared']:,} of {g['planned']:,}",
            _figure(g["median_ratio"], ".3f"),
            _figure(g["share_within_5_percent"], ".0%"),
            _figure(g["kendall_tau"], ".3f"),
            ", ".join(f"{k} {n:,}" for k, n in g["verdicts"].items()),
        )
    return table


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def refusals_text(what: str, rejected: int, refusals: Mapping[str, int]) -> Text:
    """Say how many rows are refused, and why."""
    lines = [f"{what} {rejected:,} rows:"]
    lines += [f"  {count:,}: {why}" for why, count in refusals.items()]
    return Text("\n".join(lines), style="yellow")


def _groups(what: str, groups: Sequence[tuple[str, DatasetGroup]]) -> Table:
    table = make_table(what, *_NUMBERS, right=_NUMBERS)
    for shown, g in groups:
        counts = (g.trials, g.measured, g.workloads)
        table.add_row(
            shown,
            *(f"{n:,}" for n in counts),
            *(latency(s) for s in (g.fastest_s, g.slowest_s)),
        )
    return table


def _kept(
    what: str, groups: Sequence[tuple[str, DatasetGroup]], kept: Sequence[DatasetGroup]
) -> Table:
    numbers = ("trials", "kept", "workloads", "of them kept", "fastest", "fastest kept")
    after = {g.name: g for g in kept}
    table = make_table(what, *numbers, right=numbers)
    for shown, g in groups:
        left = after.get(g.name)
        table.add_row(
            shown,
            f"{g.trials:,}",
            f"{left.trials if left else 0:,}",
            f"{g.workloads:,}",
            f"{left.workloads if left else 0:,}",
            latency(g.fastest_s),
            latency(left.fastest_s if left else None),
        )
    return table
