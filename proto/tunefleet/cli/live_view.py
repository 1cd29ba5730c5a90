"""The picture of a running campaign that people watch on a terminal."""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from tunefleet.cli.tables import STATE_STYLES
from tunefleet.client import (
    CampaignPurpose,
    CampaignState,
    CampaignStatus,
    TargetStatus,
    TaskStatus,
)
from tunefleet.client.wording import duration, factor, latency, short_target
from tunefleet.errors import TuneFleetError

FEWEST_TASKS = 3
MOST_TASKS = 14
HISTORY_POINTS = 24
"""Columns of the curve of estimated latencies."""
WIDEST = 120
"""Columns beyond which lines get too long to read."""
WIDE = 100
"""Columns from which on there is room for everything."""
_BLOCKS = "▁▂▃▄▅▆▇█"
_Letters = dict[tuple[str, str], str]
_BUSY = {CampaignState.IMPORTING, CampaignState.TUNING, CampaignState.FINISHING}


class CampaignView:
    """Draws the latest status of a campaign; times go on between statuses."""

    def __init__(self, status: CampaignStatus, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._spinner = Spinner("dots", style="cyan")
        self._curves: dict[tuple[str, str], list[float]] = {}
        self.update(status)

    def update(self, status: CampaignStatus) -> None:
        """Take a new status, which also says that the coordinator is there."""
        self._status = status
        self._heard_at = self._clock()
        self._lost = ""
        for target in status.targets:
            curve = self._curves.setdefault((target.target, target.fingerprint), [])
            now = target.estimated_latency_s
            if now is not None and (not curve or curve[-1] != now):
                curve.append(now)

    def connection_lost(self, error: TuneFleetError) -> None:
        """Show that the connection is lost and is being opened again."""
        self._lost = error.message

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it, with as many tasks as the terminal has lines for."""
        status = self._status
        width = min(options.max_width, WIDEST)
        wide = width >= WIDE
        other_lines = 12 + 3 * len(status.targets)
        rows = max(FEWEST_TASKS, min(MOST_TASKS, console.height - other_lines))
        body: list[RenderableType] = [self._activity()]
        letters = _letters(status)
        for target in status.targets:
            body += [Text(""), *self._target(target, letters, wide=wide)]
        body += [Text(""), self._facts()]
        if status.tasks:
            body += [Text(""), *_tasks(status, letters, rows, wide=wide)]
        title = Text.assemble((f" {status.name} ", "bold"), (f"{status.campaign_id} ", "dim"))
        yield Panel(
            Group(*body),
            title=title,
            title_align="left",
            subtitle=Text(" Ctrl-C leaves this view; the campaign goes on ", style="dim"),
            subtitle_align="right",
            border_style="yellow" if self._lost else "blue",
            box=box.ROUNDED,
            padding=(1, 2),
            width=width,
        )

    def _activity(self) -> RenderableType:
        status = self._status
        if self._lost:
            text = Text.assemble(
                ("connection lost, trying again ", "bold yellow"), (self._lost, "yellow")
            )
        else:
            text = Text.assemble(
                (f"{status.doing} ", STATE_STYLES.get(status.state, "")),
                (status.activity, ""),
            )
        line = Table.grid(padding=(0, 1))
        line.add_column(width=1)
        line.add_column(no_wrap=True, overflow="ellipsis")
        busy = self._lost or status.state in _BUSY
        line.add_row(self._spinner if busy else Text("●", style="dim"), text)
        return line

    def _target(
        self, target: TargetStatus, letters: _Letters, *, wide: bool
    ) -> Iterator[RenderableType]:
        done, wanted = target.trials, target.trials_wanted
        share = f"{min(1.0, done / wanted):.0%}" if wanted else ""
        letter = letters.get((target.target, target.fingerprint), "")
        first = Table.grid(padding=(0, 2), expand=True)
        first.add_column(no_wrap=True, overflow="ellipsis")
        first.add_column(ratio=1)
        first.add_column(justify="right", no_wrap=True)
        first.add_row(
            Text.assemble(
                (f"{letter} ".lstrip(), "bold magenta"), (short_target(target.target), "bold")
            ),
            ProgressBar(
                total=max(wanted, 1),
                completed=min(done, wanted),
                complete_style="cyan",
                finished_style="green",
            ),
            Text.assemble((f"{done}/{wanted} trials ", "bold"), (f"{share:>4}", "cyan")),
        )
        yield first
        second = Table.grid(padding=(0, 2), expand=True)
        second.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        second.add_column(justify="right", no_wrap=True)
        curve = self._curves.get((target.target, target.fingerprint), [])
        devices = ", ".join(target.devices)
        second.add_row(
            Text(f"on {devices}" if devices else "no device at work", style="dim"),
            Text.assemble(
                self._estimate(target), ("  " + _sparkline(curve) if wide else "", "green")
            ),
        )
        yield second

    def _estimate(self, target: TargetStatus) -> Text:
        if self._status.purpose is not CampaignPurpose.TUNE:
            return Text()
        if target.estimated_latency_s is None:
            own = [
                t for t in self._status.tasks if _group(t) == (target.target, target.fingerprint)
            ]
            known = sum(t.best_s is not None for t in own)
            return Text(f"{known} of {len(own)} tasks measured so far", style="dim")
        text = Text.assemble(
            ("network ", "dim"),
            (latency(target.estimated_latency_s), "bold green"),
        )
        if target.estimated_baseline_s is not None:
            text.append(f"  from {latency(target.estimated_baseline_s)}", style="dim")
            text.append(f"  {factor(target.estimated_speedup)} faster", style="bold green")
        return text

    def _facts(self) -> Text:
        status = self._status
        tuning = status.state is CampaignState.TUNING
        since_s = self._clock() - self._heard_at if tuning and not self._lost else 0.0
        facts = []
        if tuning or status.tuning_s > 0:
            facts.append(
                (f"{status.doing if tuning else 'tuned'} for", duration(status.tuning_s + since_s))
            )
        if status.eta_s is not None and tuning:
            facts.append(("to go", duration(max(0.0, status.eta_s - since_s))))
        if status.time_limit_s is not None:
            facts.append(("limit", duration(status.time_limit_s)))
        facts.append(("cost model", status.model_version or "none yet"))
        line = Text()
        for label, value in facts:
            line.append("   " if line else "")
            line.append(f"{label} ", style="dim")
            line.append(value, style="bold")
        return line


def _tasks(
    status: CampaignStatus, letters: _Letters, rows: int, *, wide: bool
) -> Iterator[RenderableType]:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0), pad_edge=False, expand=True)
    table.add_column("task", ratio=1, no_wrap=True, overflow="ellipsis")
    columns = ["share", "calls", "trials", "baseline", "best", "speedup", "GFLOP/s"]
    shown = columns if wide else [c for c in columns if c not in {"calls", "GFLOP/s"}]
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    totals: dict[tuple[str, str], float] = {}
    for task in status.tasks:
        totals[_group(task)] = totals.get(_group(task), 0.0) + (task.network_s or 0.0)
    ranked = sorted(status.tasks, key=lambda t: -(t.network_s or 0.0))
    for task in ranked[:rows]:
        cells: dict[str, RenderableType] = {
            "share": "-" if not task.network_s else f"{task.network_s / totals[_group(task)]:.0%}",
            "calls": str(task.weight),
            "trials": str(task.trials),
            "baseline": Text(latency(task.baseline_s), style="dim"),
            "best": Text(latency(task.best_s), style="bold"),
            "speedup": Text(factor(task.speedup), style=_speedup_style(task.speedup)),
            "GFLOP/s": "-" if task.gflops is None else f"{task.gflops:,.1f}",
        }
        letter = letters.get(_group(task), "")
        name = Text.assemble(
            (f"{letter} ".lstrip(), "magenta"), (task.name, "dim" if task.exhausted else "")
        )
        table.add_row(name, *(cells[title] for title in shown))
    yield table
    if len(ranked) > rows:
        yield Text(f"and {len(ranked) - rows} more tasks that take less time", style="dim")


def _letters(status: CampaignStatus) -> _Letters:
    """Give each target a letter where there are several, so that tasks can name theirs."""
    if len(status.targets) < 2:
        return {}
    groups = [(t.target, t.fingerprint) for t in status.targets]
    return dict(zip(groups, string.ascii_uppercase, strict=False))


def _group(task: TaskStatus) -> tuple[str, str]:
    return task.target, task.fingerprint


def _speedup_style(speedup: float | None) -> str:
    if speedup is None or speedup < 1.05:
        return "dim"
    return "bold green" if speedup >= 3 else "green"


def _sparkline(values: list[float]) -> str:
    """Draw values as a row of blocks, the highest value being a full block."""
    if len(values) < 2:
        return ""
    step = max(1.0, len(values) / HISTORY_POINTS)
    count = min(len(values), HISTORY_POINTS)
    # The last column is always the latest value.
    picked = [values[round(len(values) - 1 - (count - 1 - i) * step)] for i in range(count)]
    top = max(picked)
    return "".join(_BLOCKS[min(7, int(value / top * 7.99))] for value in picked)
