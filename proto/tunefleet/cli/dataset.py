"""``tunefleet dataset``: measured trials as files, out of a coordinator and into it."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.cli.dataset_prune import prune
from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)

app = typer.Typer(
    help="Export measured trials as Parquet, take in others', count them, and cut them down.",
    no_args_is_help=True,
)


class DatasetFormat(StrEnum):
    """What the files of a dataset are."""

    PARQUET = "parquet"
    METASCHEDULE = "metaschedule"


CampaignsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--campaign",
        metavar="ID",
        help="Only trials of this campaign; may be given several times.",
        show_default=False,
    ),
]
TargetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="Only trials for this target, in any spelling; may be given several times.",
        show_default=False,
    ),
]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="Only trials of this device; may be given several times.",
        show_default=False,
    ),
]


@app.command()
def export(
    *,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Where the files go; made if missing.", show_default=False
        ),
    ],
    campaign: CampaignsOption = None,
    target: TargetsOption = None,
    device: DevicesOption = None,
    dataset_format: Annotated[
        DatasetFormat,
        typer.Option(
            "--kind",
            help="Parquet tables, or a MetaSchedule database of one --device and --target.",
        ),
    ] = DatasetFormat.PARQUET,
    best: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            help="Fastest schedules of each workload in a MetaSchedule database; 0 for all.",
        ),
    ] = 0,
    features: Annotated[
        bool,
        typer.Option(
            "--features/--no-features",
            help="Leaving features out makes a third less; an import can compute them again.",
        ),
    ] = True,
    licence: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Licence that the files name.", show_default=False),
    ] = "",
    description: Annotated[
        str,
        typer.Option(metavar="TEXT", help="A sentence on what it is.", show_default=False),
    ] = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Write stored trials to DIR: trials, workloads and devices as Parquet, and a data card.

    \bExamples:
      $ tunefleet dataset export my-trials
      $ tunefleet dataset export my-trials --campaign squeezenet --licence CC-BY-4.0
      $ tunefleet dataset export for-tvm --kind metaschedule --device box --target llvm --best 5

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.dataset_tables import stats_sheet
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import ActivityBar
    from tunefleet.client.wording import size

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet, ActivityBar(console) as bar:
        exported = fleet.export_dataset(
            folder,
            campaigns=campaign or (),
            targets=target or (),
            devices=device or (),
            dataset_format=dataset_format,
            features=features,
            best=best,
            licence=licence,
            description=description,
            activity=bar.advance,
            progress=lambda done, total: bar.advance(done / total, "fetching files"),
        )
    if as_json:
        files = [str(path.absolute()) for path in exported.files]
        print_json({"output_dir": str(folder.absolute()), "files": files, "stats": exported.stats})
        return
    console.print(stats_sheet(exported.stats))
    console.print(f"Written to {folder.absolute()}:", style="bold")
    for path in exported.files:
        console.print(f"  {path.name}  ({size(path.stat().st_size)})")


@app.command()
def stats(
    *,
    place: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            help="A folder or file of trials to look at; what the coordinator has if left out.",
            show_default=False,
        ),
    ] = None,
    campaign: CampaignsOption = None,
    target: TargetsOption = None,
    device: DevicesOption = None,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Count trials by target, verdict and source, with the range of their latencies.

    With DIR every row is checked as an import would, and no coordinator is needed.

    \bExamples:
      $ tunefleet dataset stats
      $ tunefleet dataset stats my-trials --format json | jq .stats.verdicts
    """
    from tunefleet.cli.dataset_tables import about_sheet, refusals_text, stats_sheet
    from tunefleet.cli.local_jobs import dataset_stats
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.client.datasets import DatasetStats
    from tunefleet.errors import Reason, TuneFleetError

    as_json = output_format is OutputFormat.JSON
    if place is not None:
        if campaign or target or device:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                "--campaign, --target and --device choose among a coordinator's trials, not DIR's",
            )
        raw = dataset_stats(place)
        counted = DatasetStats.from_json(raw)
        checked = {name: raw[name] for name in ("about", "rejected", "refusals")}
        if as_json:
            print_json({"stats": counted, **checked})
            return
        make_console().print(about_sheet(raw["about"]), stats_sheet(counted))
        if raw["rejected"]:
            make_console().print(
                refusals_text("An import would refuse", raw["rejected"], raw["refusals"])
            )
        return
    with connect(coordinator) as fleet:
        counted = fleet.dataset_stats(
            campaigns=campaign or (), targets=target or (), devices=device or ()
        )
    if as_json:
        print_json({"stats": counted})
    else:
        make_console().print(stats_sheet(counted))


@app.command("import")
def import_(
    *,
    place: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A dataset's folder, or a file with trials.", show_default=False
        ),
    ],
    dataset_format: Annotated[
        DatasetFormat,
        typer.Option(
            "--kind",
            help="What the files are: tables that `dataset export` wrote, or a MetaSchedule "
            "database.",
        ),
    ] = DatasetFormat.PARQUET,
    device: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The device that measured a MetaSchedule database.",
            show_default=False,
        ),
    ] = "",
    target: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="The target that a MetaSchedule database was built for.",
            show_default=False,
        ),
    ] = "",
    featurize: Annotated[
        bool,
        typer.Option(
            "--featurize",
            help="Have agents compute features that are missing or of another release.",
        ),
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the import and return at once.")
    ] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Take a dataset's trials in: each once, under the hardware and target they were made for.

    \bTrials that are stored already stay as they are; rows that cannot be are counted and named.
    Devices that never registered here are known as imported (`tunefleet devices list --imported`)
    and get no work.

    \bExamples:
      $ tunefleet dataset import my-trials
      $ tunefleet dataset import old-tuning --kind metaschedule --device box \\
          --target 'llvm -mcpu=znver4 -num-cores=2'

    With --format json, progress goes to stderr and one JSON object to stdout.
    """
    from tunefleet.cli.dataset_tables import import_sheet
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.watching import TransferBar, follow
    from tunefleet.client.datasets import import_result

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet:
        with TransferBar(console, f"Sending {place.name}") as bar:
            campaign = fleet.import_dataset(
                place,
                dataset_format=dataset_format,
                device=device,
                target=target,
                featurize=featurize,
                upload_progress=bar.advance,
            )
        if detach:
            if as_json:
                print_json({"campaign": campaign.status})
            else:
                console.print(f"Started the import {campaign.id}.")
                console.print(f"Watch it with: tunefleet campaigns watch {campaign.id}")
            return
        follow(campaign, console)
        campaign.raise_if_unsuccessful()
        result = import_result(campaign)
    if as_json:
        print_json({"campaign": campaign.status, "result": result})
    else:
        console.print(import_sheet(result))


app.command()(prune)
