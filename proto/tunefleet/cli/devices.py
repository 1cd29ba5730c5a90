"""``tunefleet devices``: which machines there are and what they can do."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)

app = typer.Typer(
    help="List devices, show what they are, keep work from them.", no_args_is_help=True
)


@app.command("list")
def list_devices(
    selector: Annotated[
        str,
        typer.Argument(
            metavar="SELECTOR",
            help="Only those that match, such as arch=aarch64,site=lab.",
            show_default=False,
        ),
    ] = "",
    imported: Annotated[
        bool,
        typer.Option(
            "--imported", help="Those known from datasets alone, which cannot be sent work."
        ),
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List devices by name; with a selector, those that `tune --devices` would use.

    \bExamples:
      $ tunefleet devices list
      $ tunefleet devices list arch=aarch64
      $ tunefleet devices list --format json | jq -r '.devices[].name'
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.tables import devices_table

    with connect(coordinator) as fleet:
        devices = fleet.devices(selector, imported=imported)
    if output_format is OutputFormat.JSON:
        print_json({"devices": devices})
    elif devices:
        make_console().print(devices_table(devices))
    elif imported:
        make_console().print("No device is known from a dataset alone.")
    elif selector:
        make_console().print(f"No device matches {selector}.")
    else:
        make_console().print(
            "No devices yet. Start an agent on one with: tunefleet-agent run --coordinator "
            f"{coordinator}"
        )


@app.command()
def show(
    device: Annotated[
        str, typer.Argument(metavar="NAME", help="The device's name or id.", show_default=False)
    ],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show a device's hardware, its versions, and what it measured of itself.

    \bExamples:
      $ tunefleet devices show pi-4
      $ tunefleet devices show pi-4 --format json | jq .device.profile.measured
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.tables import device_details

    with connect(coordinator) as fleet:
        found = fleet.device(device)
    if output_format is OutputFormat.JSON:
        print_json({"device": found})
    else:
        make_console().print(device_details(found))


@app.command()
def release(
    device: Annotated[
        str, typer.Argument(metavar="NAME", help="The device's name or id.", show_default=False)
    ],
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Also forget its history: what its reference kernel takes now is normal.",
        ),
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """End a device's quarantine at once.

    \bA device rests in quarantine when a fixed reference kernel, timed beside every candidate,
    strays by a quarter from the device's own history in three rounds: what it measures then
    would not fit what it measured before. It gets a round again after a while and is released
    by itself when that is normal. `tunefleet-agent doctor`, run on it, may know the cause.

    \bExamples:
      $ tunefleet devices show pi-4
      $ tunefleet devices release pi-4
      $ tunefleet devices release pi-4 --forget    after its fan was replaced
    """
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        found = fleet.release(device, forget_history=forget)
    if output_format is OutputFormat.JSON:
        print_json({"device": found})
    else:
        make_console().print(f"Device {found.name} is {found.state}.")


@app.command()
def drain(
    device: Annotated[
        str, typer.Argument(metavar="NAME", help="The device's name or id.", show_default=False)
    ],
    wait: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Wait so long at the most until its last round has ended, such as 10m.",
            show_default=False,
        ),
    ] = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Give a device no more work; the round it has it may finish.

    \bThe device stays drained, also when it or the coordinator starts again, until
    `tunefleet devices undrain`.

    \bExamples:
      $ tunefleet devices drain pi-4
      $ tunefleet devices drain pi-4 --wait 10m && ssh pi-4 sudo reboot
    """
    from tunefleet.cli.drain import wait_until
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.parsing import parse_duration

    limit_s = parse_duration(wait) if wait else 0.0
    with connect(coordinator) as fleet:
        found = fleet.drain_device(device)
        if wait:
            found = wait_until(
                lambda: fleet.device(device),
                lambda now: now.state != "draining",
                lambda now: f"a round on {now.name}",
                limit_s=limit_s,
                tell=make_console(sys.stderr).print,
            )
    if output_format is OutputFormat.JSON:
        print_json({"device": found})
    else:
        make_console().print(f"Device {found.name} is {found.state}.")


@app.command()
def undrain(
    device: Annotated[
        str, typer.Argument(metavar="NAME", help="The device's name or id.", show_default=False)
    ],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Give a drained device work again.

    \bExample:
      $ tunefleet devices undrain pi-4
    """
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        found = fleet.undrain_device(device)
    if output_format is OutputFormat.JSON:
        print_json({"device": found})
    else:
        make_console().print(f"Device {found.name} is {found.state}.")
