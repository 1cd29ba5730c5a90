"""``tunefleet model train``: a cost model from a dataset."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.cli.dataset_options import (
    FeaturesOption,
    PerTaskOption,
    PlaceArgument,
    ProfileOption,
)
from tunefleet.cli.options import FormatOption, OutputFormat
from tunefleet.errors import Reason, TuneFleetError


def train(
    *,
    place: PlaceArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for the model; its name is the model's. Must be new or empty.",
            show_default=False,
        ),
    ],
    parent: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Folder of a model to go on from, in place of training a new one.",
            show_default=False,
        ),
    ] = None,
    features: FeaturesOption = None,
    per_task: PerTaskOption = None,
    profile: ProfileOption = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads, by default all.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Passes over DATASET; by default what its size calls for.",
            show_default=False,
        ),
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Train a cost model on DATASET, and write it to DIR with a card that says what it is.

    \bNo coordinator is needed. One trial in five is never learned from; the model is judged
    by those. Ctrl-C loses nothing: the same command goes on where it was. The same command
    on the same machine makes the same model. `tunefleet model promote DIR` puts it in use,
    unless it ranks by schedule steps, which agents do not. TenSet's files (its dataset folder,
    measure_records, a device's folder or one file) have steps only.

    \bExamples:
      $ tunefleet model train my-trials --out my-model
      $ tunefleet model train new-trials --from my-model --out my-model-2 --seed 1
      $ tunefleet model train tenset/dataset --out tenset-model --per-task 64

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.local_jobs import profile_files, train_model
    from tunefleet.cli.model_tables import training_sheet
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import ActivityBar
    from tunefleet.client.wording import size

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    try:
        with ActivityBar(console) as bar:
            result = train_model(
                place,
                out,
                parent=parent,
                features=features,
                per_task=per_task,
                profiles=profile_files(profile),
                seed=seed,
                threads=threads,
                epochs=epochs,
                activity=bar.advance,
            )
    except KeyboardInterrupt as e:
        raise TuneFleetError(
            Reason.INTERRUPTED,
            f"interrupted; what was learned so far is kept in {out}",
            hint="The same command goes on from there.",
        ) from e
    if as_json:
        print_json(result)
        return
    console.print(training_sheet(result))
    console.print(f"Written to {out.absolute()}:", style="bold")
    for path in map(Path, result["files"]):
        console.print(f"  {path.name}  ({size(path.stat().st_size)})")
