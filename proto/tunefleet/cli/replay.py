"""``tunefleet replay``: measure known schedules again, here or on another device."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)

if TYPE_CHECKING:
    from rich.console import Console

    from tunefleet.client import TuneFleet


def replay(
    *,
    source: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN|DIR",
            help="Whose schedules: a campaign, or a dataset's folder, which is imported first.",
            show_default=False,
        ),
    ],
    devices: Annotated[
        str,
        typer.Option(
            metavar="SELECTOR",
            help="Which devices measure, as terms separated by commas, such as "
            "arch=x86_64,site=lab; all if left out.",
            show_default=False,
        ),
    ] = "",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="TVM target to build for in place of each device's own; may be given several "
            "times.",
            show_default=False,
        ),
    ] = None,
    best: Annotated[
        int,
        typer.Option(
            min=0, metavar="K", help="Only the K fastest schedules of each task; 0 for all."
        ),
    ] = 0,
    per_task: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="N schedules of each task, spread over its latencies; 0 for all.",
        ),
    ] = 0,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Longest time for measuring, such as 90s, 10m or 2h.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the replay and return at once.")
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Measure known schedules again and compare the latencies with those of before.

    \bOn the device they come from this shows how repeatable its measurements are; on another it
    carries schedules over, since what it measures are trials like any others.

    \bExamples:
      $ tunefleet replay squeezenet --devices name=box --per-task 20
      $ tunefleet replay my-trials --devices arch=aarch64 --best 5

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.dataset_tables import replay_sheet
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.parsing import parse_duration
    from tunefleet.cli.watching import follow
    from tunefleet.client.datasets import replay_result

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    time_limit_s = None if time is None else parse_duration(time)
    with connect(coordinator) as fleet:
        campaign = fleet.replay(
            _imported(fleet, source, console),
            devices=devices,
            targets=target or (),
            best=best,
            per_task=per_task,
            time_limit_s=time_limit_s,
            name=f"replay of {Path(source).name}",
        )
        if detach:
            if as_json:
                print_json({"campaign": campaign.status})
            else:
                console.print(f"Started the replay {campaign.id}.")
                console.print(f"Watch it with: tunefleet campaigns watch {campaign.id}")
            return
        follow(campaign, console)
        campaign.raise_if_unsuccessful()
        result = replay_result(campaign)
    if as_json:
        print_json({"campaign": campaign.status, "result": result})
    else:
        console.print(replay_sheet(result))


def _imported(fleet: TuneFleet, source: str, console: Console) -> str:
    """Return the campaign to replay, after importing a dataset that lies in a folder."""
    from tunefleet.cli.watching import TransferBar, follow

    place = Path(source)
    if not place.is_dir():
        return source
    with TransferBar(console, f"Sending {place.name}") as bar:
        campaign = fleet.import_dataset(place, upload_progress=bar.advance)
    follow(campaign, console)
    campaign.raise_if_unsuccessful()
    return campaign.id
