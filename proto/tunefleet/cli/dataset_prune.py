"""``tunefleet dataset prune``: a smaller dataset that teaches as much."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.cli.dataset_options import PLACE_HELP, reading_text
from tunefleet.cli.options import FormatOption, OutputFormat

STRATEGIES = {
    "random": "any trials: what the others must beat",
    "per_task_uniform": "equally many trials of each task",
    "label_stratified": "each task's fastest tenth, and fewer the slower they are",
    "feature_diverse": "trials whose features are far from each other's",
    "uncertain": "trials of which a cost model is least sure, and a fifth of any others",
    "combined": "each task's fastest tenth, then diverse ones, rather those a model is unsure of",
}
"""What each strategy keeps, by name; the coordinator's part has them, and may have more."""

_FILES_SHOWN = 10
"""TenSet has thousands."""

_STRATEGIES_HELP = "\n".join(f"      {name}: {what}" for name, what in STRATEGIES.items())


def prune(
    *,
    place: Annotated[
        Path,
        typer.Argument(metavar="DATASET", help=PLACE_HELP, show_default=False),
    ],
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Folder for the new dataset; must be new or empty.",
            show_default=False,
        ),
    ],
    keep: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of the trials to keep, above 0 and at most 1.", max=1.0
        ),
    ] = 0.5,
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="How trials are chosen; see below.")
    ] = "combined",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of everything random.")] = 0,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.onnx",
            help="Cost model that says of which trials it is unsure; uncertain needs one.",
            show_default=False,
        ),
    ] = None,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Choose the trials of DATASET worth learning from, and write them to OUT.

    \bNo coordinator is needed. Two trials of every task stay where the share allows;
    trials without features cannot be judged and are left out. OUT is a dataset like
    any other, with a card that says what was done. TenSet's files (its dataset folder,
    measure_records, a device's folder or one file) are pruned file by file, described by
    their schedule steps: of each task the same share stays, its lines as they are.

    \bExamples:
      $ tunefleet dataset prune my-trials half --keep 0.5
      $ tunefleet dataset prune my-trials third --keep 0.33 --strategy label_stratified
      $ tunefleet dataset prune my-trials unsure --strategy uncertain --model model.onnx
      $ tunefleet dataset prune tenset/dataset/measure_records/e5-2673 e5-half

    With --format json, progress goes to stderr and one JSON object to stdout.

    \bStrategies:
    """
    from tunefleet.cli.dataset_tables import prune_sheet
    from tunefleet.cli.local_jobs import prune_dataset
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import ActivityBar
    from tunefleet.client.datasets import DatasetStats
    from tunefleet.client.wording import size

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with ActivityBar(console) as bar:
        result = prune_dataset(
            place,
            out,
            keep=keep,
            strategy=strategy,
            seed=seed,
            model=model,
            activity=bar.advance,
        )
    before, kept = (DatasetStats.from_json(result[name]) for name in ("before", "kept"))
    if as_json:
        print_json(
            {
                "output_dir": str(out.absolute()),
                "files": result["files"],
                "strategy": strategy,
                "keep": keep,
                "seed": seed,
                "before": before,
                "kept": kept,
                "left_out": result["left_out"],
                "unusable": result.get("unusable"),
            }
        )
        return
    console.print(prune_sheet(before, kept, result["left_out"]))
    if result.get("unusable"):
        console.print(reading_text((), result["unusable"]))
    console.print(f"Written to {out.absolute()}:", style="bold")
    files = [Path(path) for path in result["files"]]
    for path in files[:_FILES_SHOWN]:
        console.print(f"  {path.name}  ({size(path.stat().st_size)})")
    if len(files) > _FILES_SHOWN:
        console.print(f"  and {len(files) - _FILES_SHOWN:,} files more")


prune.__doc__ = (prune.__doc__ or "").rstrip() + "\n" + _STRATEGIES_HELP
