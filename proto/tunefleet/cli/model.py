"""``tunefleet model``: cost models, and the versions that a coordinator has."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.cli.model_judging import compare, evaluate
from tunefleet.cli.model_training import train
from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)

app = typer.Typer(
    help="Train cost models, judge them, and choose the version that agents rank with.",
    no_args_is_help=True,
)
app.command()(train)
app.command()(evaluate)
app.command()(compare)

VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="Such as v3.", show_default=False)
]


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
    version: VersionArgument,
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


@app.command()
def export(
    *,
    version: VersionArgument,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Where the files go; must be new or empty.", show_default=False
        ),
    ],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Write a version to DIR: its ONNX file, what training goes on from, and what is known of it.

    \bExamples:
      $ tunefleet model export v3 my-model
      $ tunefleet model train my-trials --from my-model --out my-model-2
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import TransferBar
    from tunefleet.client.wording import size
    from tunefleet.features import schema_digest

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet, TransferBar(console, f"Fetching {version}") as bar:
        exported = fleet.export_model(version, folder, progress=bar.advance)
    if exported.model.feature_schema != schema_digest():
        console.print(
            f"{version} is for features of schema {exported.model.feature_schema}, of another "
            f"release; this one has {schema_digest()} and can neither judge it nor go on from it.",
            style="yellow",
        )
    if as_json:
        files = [str(path.absolute()) for path in exported.files]
        print_json({"model": exported.model, "output_dir": str(folder.absolute()), "files": files})
        return
    console.print(f"Written to {folder.absolute()}:", style="bold")
    for path in exported.files:
        console.print(f"  {path.name}  ({size(path.stat().st_size)})")


@app.command()
def promote(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="VERSION|DIR",
            help="A version of the coordinator's, or a model's folder, which is sent first.",
            show_default=False,
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Promote it however it ranks, without judging it.")
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Have agents rank with a model from their next round on, if it ranks no worse than now.

    \bIt is judged by the coordinator's own trials that no version learned from. Later
    trainings go on from it, and may replace it by the same rule.

    \bExamples:
      $ tunefleet model promote my-model
      $ tunefleet model promote v3 --force
    """
    from tunefleet.cli.model_inputs import find_folder
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import ActivityBar

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    folder = find_folder(model)
    with connect(coordinator) as fleet:
        version = model
        if folder is not None:
            with ActivityBar(console) as bar:
                sent = fleet.upload_model(
                    folder,
                    activity=bar.advance,
                    progress=lambda done, total: bar.advance(done / total, "sending the model"),
                )
            version = sent.version
            console.print(f"{folder} is version {version} there.")
        with ActivityBar(console) as judging:
            promoted = fleet.promote_model(version, force=force, activity=judging.advance)
    if as_json:
        print_json({"model": promoted})
    else:
        console.print(f"Agents rank with {promoted.version} from their next round on.")
        console.print(promoted.why, style="dim")


@app.command()
def rollback(
    version: Annotated[
        str,
        typer.Argument(
            metavar="[VERSION]",
            help="The version to go back from; refused if it is not in use any more.",
            show_default=False,
        ),
    ] = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Take the version that agents rank with out of use, and go back to the one before it.

    \bIt is handed to no agent again unless it is promoted again. Trainings go on, from the
    version that is in use then.

    \bExamples:
      $ tunefleet model rollback
      $ tunefleet model rollback v4
    """
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        current = fleet.roll_back_model(version)
    if output_format is OutputFormat.JSON:
        print_json({"model": current})
    else:
        make_console().print(f"Agents rank with {current.version} from their next round on.")
