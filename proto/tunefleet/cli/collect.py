"""``tunefleet collect``: fill the record store with trials that cost models learn from."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CampaignNameOption,
    CoordinatorOption,
    DevicesOption,
    FormatOption,
    OutputFormat,
    connect,
)
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.families import FAMILIES

if TYPE_CHECKING:
    from rich.console import Console

    from tunefleet.client import Campaign

_ALL = "all"
_FAMILIES_HELP = "\n".join(f"  {name:<18}{what}" for name, what in FAMILIES.items())


def collect(
    *,
    models: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="ONNX files, or programs saved by torch.export.save.",
            show_default=False,
        ),
    ] = None,
    families: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Families of operators to sample workloads from, separated by commas, or all.",
            show_default=False,
        ),
    ] = "",
    workloads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Workloads to sample from each family.")
    ] = 25,
    per_task: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Candidates to measure of each task and target."),
    ] = 32,
    devices: DevicesOption = "",
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TARGET",
            help="TVM target to build for in place of each device's own, such as "
            "'llvm -mcpu=x86-64-v3 -num-cores=2'; once for each target.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Longest time for measuring each model, and all families, such as 10m or 8h.",
            show_default=False,
        ),
    ] = None,
    name: CampaignNameOption = "",
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of everything random: another one samples other workloads.",
        ),
    ] = 0,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start collecting and return at once.")
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Measure diverse candidates, good and bad, for cost models to learn from.

    \bEach model becomes a campaign, and all families together become one. They run on
    the coordinator, survive its restarts and those of agents, and what they measured
    is kept whenever they end: Ctrl-C leaves the view only, `tunefleet campaigns
    cancel` ends one.

    \bExamples:
      $ tunefleet collect resnet50.onnx bert.pt2 --per-task 64
      $ tunefleet collect --families conv2d,dense --workloads 100 --devices arch=aarch64
      $ tunefleet collect --families all --target 'llvm -mcpu=x86-64-v2 -num-cores=1' \\
          --target 'llvm -mcpu=x86-64-v3 -num-cores=1' --detach

    \bFamilies:
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.parsing import parse_duration
    from tunefleet.cli.watching import TransferBar, follow

    chosen = _families(families)
    if not models and not chosen:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            "there is nothing to collect from",
            hint="Name model files, or --families all; see `tunefleet collect --help`.",
        )
    as_json = output_format is OutputFormat.JSON
    time_limit_s = None if time is None else parse_duration(time)
    console = make_console(sys.stderr if as_json else sys.stdout)
    sources: list[Path | None] = [*(models or ()), *([None] if chosen else [])]
    with connect(coordinator) as fleet:
        campaigns: list[Campaign] = []
        for model in sources:
            with TransferBar(console, f"Sending {model.name if model else 'families'}") as bar:
                campaigns.append(
                    fleet.collect(
                        model,
                        families=() if model else chosen,
                        workloads=workloads,
                        per_task=per_task,
                        devices=devices,
                        targets=target or (),
                        time_limit_s=time_limit_s,
                        name=name,
                        seed=seed,
                        upload_progress=bar.advance,
                    )
                )
        if not detach:
            for campaign in campaigns:
                follow(campaign, console)
        if as_json:
            print_json({"campaigns": [campaign.status for campaign in campaigns]})
        elif detach:
            _say_started(campaigns, console)
        for campaign in campaigns if not detach else ():
            campaign.raise_if_unsuccessful()


collect.__doc__ = (collect.__doc__ or "").rstrip() + "\n" + _FAMILIES_HELP


def _families(text: str) -> tuple[str, ...]:
    if text == _ALL:
        return tuple(FAMILIES)
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"there is no family {', '.join(unknown)}",
            hint=f"There are {', '.join(FAMILIES)}, or all.",
        )
    return names


def _say_started(campaigns: list[Campaign], console: Console) -> None:
    for campaign in campaigns:
        console.print(f"Started campaign {campaign.id} ({campaign.status.name}).")
    console.print("Watch one with: tunefleet campaigns watch ID")
