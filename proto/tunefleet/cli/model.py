"""``tunefleet model``: the versions of the cost model."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

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
    help="List the versions of the cost model and what was measured of them.",
    no_args_is_help=True,
)


@app.command("list")
def list_models(
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List all versions of the cost model, newest first.

    \bExamples:
      $ tunefleet model list
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.tables import models_table

    with connect(coordinator) as fleet:
        versions = fleet.models()
    if output_format is OutputFormat.JSON:
        print_json({"models": versions})
    elif versions:
        make_console().print(models_table(versions))
    else:
        make_console().print("No cost model yet: the first is trained as trials arrive.")


@app.command()
def show(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Such as v3.", show_default=False)
    ],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show one version: its metrics, its parent, and why it was or was not promoted.

    \bExamples:
      $ tunefleet model show v3
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.tables import model_details

    with connect(coordinator) as fleet:
        found = fleet.model(version)
    if output_format is OutputFormat.JSON:
        print_json({"model": found})
    else:
        make_console().print(model_details(found))
