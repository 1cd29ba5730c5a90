"""What came of a campaign: tables on the terminal, files in a folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from tunefleet.cli.output import print_json
from tunefleet.cli.tables import details, make_table, state_text
from tunefleet.cli.watching import TransferBar
from tunefleet.client import CampaignPurpose
from tunefleet.client.wording import ago, duration, factor, latency, short_target, size

if TYPE_CHECKING:
    from rich.console import Console

    from tunefleet.client import Campaign, CampaignStatus

_SUBJECTS = ("untuned", "tuned", "onnxruntime")
_FILES_SHOWN = 12


def collect(campaign: Campaign, folder: Path | None, console: Console, *, as_json: bool) -> None:
    """Fetch a campaign's results and say where they are.

    Args:
        campaign: one that is done.
        folder: where the files go; ``./tunefleet-out/NAME-ID`` if ``None``.
        console: where progress and tables go.
        as_json: whether to print one JSON object on stdout in place of tables.

    Raises:
        TuneFleetError: CAMPAIGN_STATE, there are no results; BLOB_CORRUPT.
    """
    destination = (folder or default_folder(campaign.status)).absolute()
    with TransferBar(console, "Fetching results") as bar:
        files = campaign.download(destination, progress=bar.advance)
    if as_json:
        print_json(
            {
                "campaign": campaign.status,
                "output_dir": str(destination),
                "files": [str(path) for path in files],
            }
        )
        return
    print_results(campaign.status, console)
    console.print(Text.assemble(("Results are in ", "bold"), (str(destination), "bold green")))
    for artifact in campaign.status.artifacts[:_FILES_SHOWN]:
        console.print(f"  {artifact.path}  ({size(artifact.size_bytes)})")
    if len(files) > _FILES_SHOWN:
        console.print(f"  and {len(files) - _FILES_SHOWN} more")


def default_folder(status: CampaignStatus) -> Path:
    """Name the folder for a campaign's results; nothing in the name leads elsewhere."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{status.name}-{status.campaign_id}").lstrip(".-")
    return Path("tunefleet-out") / plain


def print_results(status: CampaignStatus, console: Console) -> None:
    """Print why tuning ended and what it gained: end to end by target, then by task."""
    if status.tuning_ended and status.purpose is CampaignPurpose.TUNE:
        console.print(
            f"Tuning ended after {status.trials} trials in {duration(status.tuning_s)}: "
            f"{status.tuning_ended}.",
            highlight=False,
        )
    if any(target.benchmark_s for target in status.targets):
        console.print(_end_to_end_table(status))
    for target in status.targets:
        if target.benchmark_error:
            what = f"{short_target(target.target)} was not timed end to end: "
            console.print(what + target.benchmark_error, style="bold red", highlight=False)
    if status.tasks:
        console.print(tasks_table(status))


def print_campaign(status: CampaignStatus, console: Console) -> None:
    """Print everything known of a campaign."""
    limit = "none" if status.time_limit_s is None else duration(status.time_limit_s)
    tunes = status.purpose is CampaignPurpose.TUNE
    shapes = "; ".join(f"{n}={','.join(map(str, dims))}" for n, dims in status.shapes.items())
    console.print(
        details(
            ("campaign", status.campaign_id),
            ("name", status.name),
            ("state", state_text(status.state)),
            *(() if status.state.ended else (("activity", status.activity or "none"),)),
            ("model", status.model_filename),
            ("shapes", shapes or "the model's own"),
            ("devices", ", ".join(status.devices) or status.device_selector or "all"),
            ("targets", ", ".join(status.targets_requested) or "each device's own"),
            ("trials", f"{status.trials} of {status.trials_wanted or '?'}"),
            ("time limit", limit),
            *((("least gain", _least_gain(status)),) if tunes else ()),
            ("tuning time", duration(status.tuning_s)),
            ("seed", str(status.seed)),
            ("cost model", status.model_version or "none yet"),
            ("created", ago(status.created_at)),
            ("ended", "not yet" if status.ended_at is None else ago(status.ended_at)),
            ("results", status.artifact_dir or "none yet"),
        )
    )
    if status.error is not None:
        console.print(f"\n{status.error.reason}: {status.error.message}", style="bold red")
    if status.targets:
        console.print(_estimates_table(status))
    print_results(status, console)


def _least_gain(status: CampaignStatus) -> str:
    if status.min_gain <= 0:
        return "none: the whole budget is used"
    return f"{status.min_gain * 100:.3g} % of the latency a round"


def tasks_table(status: CampaignStatus) -> Table:
    """Make a table of tasks, the most expensive untuned ones first."""
    several = len(status.targets) > 1
    columns = ("task", "calls", "trials", "before", "after", "speedup", "GFLOP/s")
    table = make_table(*columns, *(("target",) if several else ()), right=columns[1:])
    table.title = "Tasks, for one call"
    for task in sorted(status.tasks, key=lambda t: -t.weight * (t.baseline_s or 0.0)):
        gflops = "-" if task.gflops is None else f"{task.gflops:,.1f}"
        table.add_row(
            *(task.name, str(task.weight), str(task.trials)),
            *(_microseconds(task.baseline_s), _microseconds(task.best_s)),
            *(Text(factor(task.speedup), style="green"), gflops),
            *((short_target(task.target),) if several else ()),
        )
    return table


def _estimates_table(status: CampaignStatus) -> Table:
    tunes = status.purpose is CampaignPurpose.TUNE
    estimates = ("baseline", "now", "speedup") if tunes else ()
    columns = ("target", "devices", "trials", *estimates)
    table = make_table(*columns, right=columns[2:])
    if tunes:
        table.title = "Estimated from the tasks, for one run of the model"
    for target in status.targets:
        estimated = (
            latency(target.estimated_baseline_s),
            latency(target.estimated_latency_s),
            factor(target.estimated_speedup),
        )
        table.add_row(
            short_target(target.target),
            ", ".join(target.devices) or "-",
            f"{target.trials}/{target.trials_wanted}",
            *(estimated if tunes else ()),
        )
    return table


def _end_to_end_table(status: CampaignStatus) -> Table:
    others = sorted({name for t in status.targets for name in t.benchmark_s} - set(_SUBJECTS))
    subjects = [*_SUBJECTS, *others]
    table = make_table(
        *("target", *subjects, "over untuned", "over onnxruntime", "max abs error"),
        right=(*subjects, "over untuned", "over onnxruntime", "max abs error"),
    )
    table.title = "Measured end to end, for one run of the model"
    for target in status.targets:
        times = target.benchmark_s
        tuned = times.get("tuned")
        gains = [
            factor(times[name] / tuned) if tuned and name in times else "-"
            for name in ("untuned", "onnxruntime")
        ]
        error = "-" if target.max_abs_err is None else f"{target.max_abs_err:.2e}"
        table.add_row(
            short_target(target.target),
            *(_milliseconds(times.get(name)) for name in subjects),
            *(Text(gains[0], style="bold green"), gains[1], error),
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:,.2f} ms"


def _microseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:,.1f} µs"
