"""``tunefleet study``: what cost models can learn from a dataset."""

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

STUDIES = {
    "splits": "every model on trials, tasks, networks and targets that were held out",
    "pruning": "how many training trials can go, by how they are chosen",
    "transfer": "an unseen target with 0, 32, 128, 512 and all labels of it",
    "ablation": "what each part of the attention model is worth",
    "features": "programs described by stores, by one row of the schedule, both, or steps",
    "curves": "what more workloads, and more trials of each, would buy",
    "calibration": "whether the model knows when it does not know",
}
"""What each study tells, by name; the coordinator's part has them, and may have more."""

_STUDIES_HELP = "\n".join(f"      {name}: {what}" for name, what in STUDIES.items())


def study(
    *,
    name: Annotated[
        str, typer.Argument(metavar="STUDY", help="One of those below.", show_default=False)
    ],
    place: PlaceArgument,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where tables and plots go, and what is computed on the way.",
            show_default="study-STUDY",
        ),
    ] = Path(),
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Splits and trainings to average over.")
    ] = 3,
    split: Annotated[
        list[str] | None,
        typer.Option(
            "--split",
            metavar="NAME",
            help="Only this split; may be given several times.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="Only this model, strategy or variant; may be given several times.",
            show_default=False,
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.9, metavar="SHARE", help="Share that is held out.")
    ] = 0.2,
    features: FeaturesOption = None,
    per_task: PerTaskOption = None,
    profile: ProfileOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads, by default all.")
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Train models on a part of DATASET, judge them on the rest, and write down what is found.

    \bNo coordinator is needed. Every figure comes with a 95 % interval from resampling
    workloads. Ctrl-C loses nothing: the same command goes on where it was. TenSet's files
    (its dataset folder, measure_records, a device's folder or one file) are read as schedule
    steps, and what of them cannot be used is named.

    \bExamples:
      $ tunefleet study splits my-trials
      $ tunefleet study pruning my-trials --model combined --model random
      $ tunefleet study transfer my-trials --split unseen_both --seeds 5 --format json
      $ tunefleet study splits tenset/dataset/measure_records/e5-2673 --per-task 64

    With --format json, progress goes to stderr and one JSON object to stdout.

    \bStudies:
    """
    from rich.markdown import Markdown

    from tunefleet.cli.local_jobs import profile_files, run_study
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import ActivityBar

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    folder = Path(f"study-{name}") if out == Path() else out
    options = {
        "seeds": list(range(seeds)),
        "splits": split or [],
        "models": model or [],
        "share": share,
        "features": features,
        "per_task": per_task,
        "profiles": profile_files(profile),
        "threads": threads,
    }
    with ActivityBar(console) as bar:
        result = run_study(name, place, folder, options, bar.advance)
    if as_json:
        print_json(result)
        return
    report = next(path for path in map(Path, result["files"]) if path.suffix == ".md")
    tables = [line for line in report.read_text().splitlines() if not line.startswith("![")]
    console.print(Markdown("\n".join(tables)))
    console.print(f"Written to {folder.absolute()}:", style="bold")
    for path in map(Path, result["files"]):
        console.print(f"  {path.name}")


study.__doc__ = (study.__doc__ or "").rstrip() + "\n" + _STUDIES_HELP
