"""The picture of a running campaign that people watch on a terminal."""

from __future__ import annotations

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
from tunefleet.client import CampaignState, CampaignStatus, TargetStatus, TaskStatus
from tunefleet.client.wording import duration, factor, latency, short_target
from tunefleet.errors import TuneFleetError

FEWEST_TASKS = 3
MOST_TASKS = 14
HISTORY_POINTS = 24
"""Columns of the curve of estimated latencies."""
WIDEST = 120
"""Columns beyond which lines get too long to read."""
_BLOCKS = "▁▂▃▄▅▆▇█"
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
        other_lines = 11 + 3 * len(status.targets)
        rows = max(FEWEST_TASKS, min(MOST_TASKS, console.height - other_lines))
        body: list[RenderableType] = [self._activity()]
        if status.targets:
            body += [Text(""), self._targets()]
        body += [Text(""), self._facts()]
        if status.tasks:
            body += [Text(""), *_tasks(status, rows)]
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
                (f"{status.state} ", STATE_STYLES.get(status.state, "")),
                (status.activity, ""),
            )
        text.truncate(WIDEST, overflow="ellipsis")
        line = Table.grid(padding=(0, 1))
        busy = self._lost or status.state in _BUSY
        line.add_row(self._spinner if busy else Text("●", style="dim"), text)
        return line

    def _targets(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        grid.add_column(ratio=3)
        grid.add_column(justify="right", no_wrap=True)
        for target in self._status.targets:
            done, wanted = target.trials, target.trials_wanted
            share = f"{done / wanted:.0%}" if wanted else ""
            grid.add_row(
                Text(short_target(target.target), style="bold"),
                ProgressBar(
                    total=max(wanted, 1),
                    completed=min(done, wanted),
                    complete_style="cyan",
                    finished_style="green",
                ),
                Text.assemble((f"{done}/{wanted} trials ", "bold"), (f"{share:>4}", "cyan")),
            )
            curve = self._curves.get((target.target, target.fingerprint), [])
            devices = ", ".join(target.devices) or "no device at work"
            grid.add_row(
                Text(f"on {devices}", style="dim"),
                self._estimate(target),
                Text(_sparkline(curve), style="green"),
            )
        return grid

    def _estimate(self, target: TargetStatus) -> Text:
        if target.estimated_latency_s is None:
            own = [t for t in self._status.tasks if _same_group(t, target)]
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
        facts = [("tuning for", duration(status.tuning_s + since_s))]
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


def _tasks(status: CampaignStatus, rows: int) -> Iterator[RenderableType]:
    several = len(status.targets) > 1
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, expand=True)
    table.add_column("task", ratio=1, no_wrap=True, overflow="ellipsis")
    if several:
        table.add_column("target", no_wrap=True, overflow="ellipsis", max_width=18)
    for title in ("share", "calls", "trials", "baseline", "best", "speedup", "GFLOP/s"):
        table.add_column(title, justify="right", no_wrap=True)
    totals: dict[tuple[str, str], float] = {}
    for task in status.tasks:
        key = (task.target, task.fingerprint)
        totals[key] = totals.get(key, 0.0) + (task.network_s or 0.0)
    ranked = sorted(status.tasks, key=lambda t: -(t.network_s or 0.0))
    for task in ranked[:rows]:
        total = totals[task.target, task.fingerprint]
        share = "-" if task.network_s is None else f"{task.network_s / total:.0%}"
        table.add_row(
            Text(task.name, style="dim" if task.exhausted else ""),
            *((Text(short_target(task.target), style="dim"),) if several else ()),
            *(share, str(task.weight), str(task.trials)),
            *(Text(latency(task.baseline_s), style="dim"), Text(latency(task.best_s), "bold")),
            Text(factor(task.speedup), style=_speedup_style(task.speedup)),
            "-" if task.gflops is None else f"{task.gflops:,.1f}",
        )
    yield table
    if len(ranked) > rows:
        yield Text(f"and {len(ranked) - rows} more tasks that take less time", style="dim")


def _same_group(task: TaskStatus, target: TargetStatus) -> bool:
    return (task.target, task.fingerprint) == (target.target, target.fingerprint)


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
