"""``tunefleet bench``: time what a campaign compiled again, and show where the time goes."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
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

    from tunefleet.client import Campaign


def bench(
    *,
    campaign: Annotated[
        str,
        typer.Argument(
            metavar="CAMPAIGN",
            help="Whose modules: a finished campaign's id, an unambiguous beginning of it, or its "
            "name.",
            show_default=False,
        ),
    ],
    per_op: Annotated[
        bool,
        typer.Option(
            "--per-op", help="Also show where the time goes: by function, task and operator."
        ),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which device measures; any of the same hardware as tuned if left out.",
            show_default=False,
        ),
    ] = "",
    rows: Annotated[
        int, typer.Option(min=0, metavar="N", help="Rows of each table; 0 for all.")
    ] = 25,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Time what a campaign compiled again: tuned, untuned, and onnxruntime.

    With --per-op it also shows where the time goes: what each function of the
    tuned network takes beside what its task took alone when it was tuned, what is
    no task, and at which kinds of operators onnxruntime is faster. Ctrl-C cancels
    it.

    \bExamples:
      $ tunefleet bench squeezenet
      $ tunefleet bench squeezenet --per-op --device box
      $ tunefleet bench squeezenet --per-op --format json | jq .result.groups

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.bench_tables import print_bench
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.client.bench import bench_result

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet:
        # A name may hold what a selector reads as a pattern.
        selector = f"id={fleet.device(device).device_id}" if device else ""
        timing = fleet.bench(campaign, devices=selector, per_op=per_op)
        _follow(timing, console)
        timing.raise_if_unsuccessful()
        result = bench_result(timing)
    if as_json:
        print_json({"campaign": timing.status, "result": result})
    else:
        print_bench(result, console, rows)


def _follow(timing: Campaign, console: Console) -> None:
    """Wait for the end; whoever leaves with Ctrl-C does not want the device to go on."""
    from tunefleet.cli.watching import PlainLines
    from tunefleet.errors import Reason, TuneFleetError

    try:
        if not console.is_terminal:
            PlainLines(console.print).follow(timing)
            return
        with console.status("waiting") as shown:
            for status in timing.watch():
                shown.update(status.activity or status.doing)
    except KeyboardInterrupt as e:
        timing.cancel()
        raise TuneFleetError(
            Reason.INTERRUPTED,
            f"interrupted; the benchmark {timing.id} is cancelled",
            hint="Start it again with the same command.",
        ) from e
