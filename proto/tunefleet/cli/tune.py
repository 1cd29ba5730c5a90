"""``tunefleet tune``: from a model file to a folder with the tuned module."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.budgets import DEFAULT_MIN_GAIN
from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CampaignNameOption,
    CoordinatorOption,
    DevicesOption,
    FormatOption,
    OutputFormat,
    connect,
)


def tune(
    *,
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="An ONNX file, or a program saved by torch.export.save.",
            show_default=False,
        ),
    ],
    devices: DevicesOption = "",
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Candidates to measure on each kind of device; chosen from the number of tasks "
            "if left out.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Longest time for tuning, such as 90s, 10m or 2h; compiling and timing the result "
            "come on top.",
            show_default=False,
        ),
    ] = None,
    min_gain: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Stop earlier, once no next round is expected to make the model faster by this "
            "share, such as 0.1% or 0.001; 0 uses up --trials and --time. Ask for more where you "
            "are in a hurry, for less where every microsecond counts.",
        ),
    ] = f"{DEFAULT_MIN_GAIN:g}",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SIZES",
            help="Sizes of an input that the model leaves open, such as data=1,3,224,224; "
            "once for each such input.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="TVM target to build for in place of each device's own, such as "
            "'llvm -mcpu=x86-64-v3 -num-cores=2'.",
            show_default=False,
        ),
    ] = "",
    name: CampaignNameOption = "",
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of everything random in the campaign.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the results; ./tunefleet-out/NAME-ID if left out.",
            show_default=False,
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the campaign and return at once.")
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Tune a model on your devices and fetch the result.

    \bThe campaign runs on the coordinator: Ctrl-C leaves the view only, and
    `tunefleet campaigns watch` takes it up again.

    \bExamples:
      $ tunefleet tune resnet50.onnx
      $ tunefleet tune resnet50.onnx --devices arch=aarch64 --trials 2000
      $ tunefleet tune model.onnx --shape data=1,3,224,224 --time 10m --output tuned
      $ tunefleet tune model.onnx --time 2h --min-gain 0
      $ tunefleet tune model.onnx --detach --format json

    \bIt ends by itself, and says why: at --trials, at --time, or before, once no
    further round is expected to gain --min-gain.

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.parsing import parse_duration, parse_shapes, parse_share
    from tunefleet.cli.results import collect
    from tunefleet.cli.watching import TransferBar, follow

    as_json = output_format is OutputFormat.JSON
    time_limit_s = None if time is None else parse_duration(time)
    least = parse_share(min_gain)
    shapes = parse_shapes(shape or ())
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet:
        with TransferBar(console, f"Sending {model.name}") as bar:
            campaign = fleet.tune(
                model,
                devices=devices,
                trials=trials or 0,
                time_limit_s=time_limit_s,
                min_gain=least,
                shapes=shapes,
                target=target,
                name=name,
                seed=seed,
                upload_progress=bar.advance,
            )
        if detach:
            if as_json:
                print_json({"campaign": campaign.status})
            else:
                console.print(f"Started campaign {campaign.id}.")
                console.print(f"Watch it with: tunefleet campaigns watch {campaign.id}")
            return
        follow(campaign, console)
        campaign.raise_if_unsuccessful()
        collect(campaign, output, console, as_json=as_json)
