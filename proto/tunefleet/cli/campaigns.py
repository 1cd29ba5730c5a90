"""``tunefleet campaigns``: list, show, watch, steer and export campaigns."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CampaignArgument,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)

if TYPE_CHECKING:
    from tunefleet.client import CampaignStatus

app = typer.Typer(
    help="""List, watch and steer campaigns.

A campaign is named by its id, an unambiguous beginning of the id, or its name.""",
    no_args_is_help=True,
)


@app.command("list")
def list_campaigns(
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List all campaigns, newest first.

    \bExamples:
      $ tunefleet campaigns list
      $ tunefleet campaigns list --format json | jq -r '.campaigns[].campaign_id'
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.tables import campaigns_table

    with connect(coordinator) as fleet:
        statuses = [campaign.status for campaign in fleet.campaigns()]
    if output_format is OutputFormat.JSON:
        print_json({"campaigns": statuses})
    elif statuses:
        make_console().print(campaigns_table(statuses))
    else:
        make_console().print("No campaigns yet. Start one with: tunefleet tune MODEL")


@app.command()
def show(
    campaign_id: CampaignArgument,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show a campaign: what was asked for, its progress, its tasks, its results.

    \bExamples:
      $ tunefleet campaigns show resnet50
      $ tunefleet campaigns show 3f2a --format json
    """
    with connect(coordinator) as fleet:
        status = fleet.campaign(campaign_id).status
    _print_status(status, output_format)


@app.command()
def watch(
    campaign_id: CampaignArgument,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Watch a campaign until it ends. Ctrl-C leaves the view; the campaign goes on.

    Exits with 0 when the campaign is done, and with its error's code where it failed.

    \bExamples:
      $ tunefleet campaigns watch resnet50
    """
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.results import print_results
    from tunefleet.cli.watching import follow

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet:
        campaign = fleet.campaign(campaign_id)
        follow(campaign, console)
        campaign.raise_if_unsuccessful()
    if as_json:
        print_json({"campaign": campaign.status})
        return
    print_results(campaign.status, console)
    console.print(f"Fetch the results with: tunefleet campaigns export {campaign.id}")


@app.command()
def pause(
    campaign_id: CampaignArgument,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Pause a campaign: rounds under way end, no new ones begin.

    \bExamples:
      $ tunefleet campaigns pause resnet50
    """
    with connect(coordinator) as fleet:
        status = fleet.campaign(campaign_id).pause()
    _print_change(status, output_format)


@app.command()
def resume(
    campaign_id: CampaignArgument,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Resume a paused campaign.

    \bExamples:
      $ tunefleet campaigns resume resnet50
    """
    with connect(coordinator) as fleet:
        status = fleet.campaign(campaign_id).resume()
    _print_change(status, output_format)


@app.command()
def cancel(
    campaign_id: CampaignArgument,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """End a campaign for good. What it measured stays and helps later campaigns.

    \bExamples:
      $ tunefleet campaigns cancel resnet50
    """
    with connect(coordinator) as fleet:
        status = fleet.campaign(campaign_id).cancel()
    _print_change(status, output_format)


@app.command()
def export(
    campaign_id: CampaignArgument,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Folder for the results; ./tunefleet-out/NAME-ID if left out.",
            show_default=False,
        ),
    ] = None,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Fetch a campaign's results: compiled module, schedule database, report.

    Every file's digest is checked; files that are there already are not fetched again.

    \bExamples:
      $ tunefleet campaigns export resnet50
      $ tunefleet campaigns export 3f2a tuned
    """
    from tunefleet.cli.output import make_console
    from tunefleet.cli.results import collect

    as_json = output_format is OutputFormat.JSON
    console = make_console(sys.stderr if as_json else sys.stdout)
    with connect(coordinator) as fleet:
        collect(fleet.campaign(campaign_id), folder, console, as_json=as_json)


def _print_status(status: CampaignStatus, output_format: OutputFormat) -> None:
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.cli.results import print_campaign

    if output_format is OutputFormat.JSON:
        print_json({"campaign": status})
    else:
        print_campaign(status, make_console())


def _print_change(status: CampaignStatus, output_format: OutputFormat) -> None:
    from tunefleet.cli.output import make_console, print_json

    if output_format is OutputFormat.JSON:
        print_json({"campaign": status})
    else:
        make_console().print(f"Campaign {status.campaign_id} is {status.state}.")
