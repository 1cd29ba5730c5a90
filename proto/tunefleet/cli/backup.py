"""``tunefleet backup`` and ``tunefleet restore``: a coordinator's state as a folder to keep."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tunefleet.cli.options import FormatOption, OutputFormat
from tunefleet.cli.serve import default_home

HomeOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The coordinator's folder; ~/.local/share/tunefleet/coordinator if left out.",
        show_default=False,
    ),
]
PlaceArgument = Annotated[
    Path, typer.Argument(metavar="BACKUP", help="Folder of the backup.", show_default=False)
]


def backup(
    place: PlaceArgument, home: HomeOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """Copy a coordinator's state to the folder BACKUP. The coordinator may run meanwhile.

    \bThe copy is of one moment, and every blob in it is what its digest says; those
    that the disk has spoiled are named, and left out. Into a folder that is a backup
    already only what is new is copied, and it stays what it was until that is done.
    With PostgreSQL, use pg_dump, then copy the folder blobs.

    \bExamples:
      $ tunefleet backup /mnt/backup/tunefleet
      $ tunefleet backup /mnt/backup/tunefleet --home /srv/tunefleet

    The exit code is that of blob corrupt where a blob was spoiled.
    """
    folder = (home or default_home() / "coordinator").absolute()
    result = _copy("backup", folder, place, output_format)
    _tell(result, f"The state of {folder} is in {place.absolute()}", output_format)


def restore(
    place: PlaceArgument, home: HomeOption = None, output_format: FormatOption = OutputFormat.TEXT
) -> None:
    """Make a coordinator's state from the folder BACKUP.

    \bThe coordinator's folder must hold no state, and no coordinator may run in it.
    Backups of older releases are brought to this one. Interrupted, the same command
    goes on. Agents come back by themselves; what they measured under leases that were
    granted after the backup is refused, since nobody knows of these any more.

    \bExamples:
      $ tunefleet restore /mnt/backup/tunefleet
      $ tunefleet restore /mnt/backup/tunefleet --home /srv/tunefleet
    """
    folder = (home or default_home() / "coordinator").absolute()
    result = _copy("restore", folder, place, output_format)
    _tell(result, f"The state of {place.absolute()} is in {folder}", output_format)


def _copy(action: str, home: Path, place: Path, output_format: OutputFormat) -> dict[str, Any]:
    from tunefleet.cli.local_jobs import copy_state
    from tunefleet.cli.output import make_console
    from tunefleet.cli.watching import ActivityBar

    as_json = output_format is OutputFormat.JSON
    with ActivityBar(make_console(sys.stderr if as_json else sys.stdout)) as bar:
        return copy_state(action, home, place, bar.advance)


def _tell(result: dict[str, Any], done: str, output_format: OutputFormat) -> None:
    from tunefleet.cli.output import make_console, print_json
    from tunefleet.client.wording import size
    from tunefleet.errors import Reason, TuneFleetError

    if output_format is OutputFormat.JSON:
        print_json(result)
    else:
        copied = f"{result['copied']:,} of {result['blobs']:,} blobs copied"
        console = make_console(sys.stdout)
        console.print(f"{copied}, {size(result['bytes_copied'])}.")
        console.print(f"{done}.", soft_wrap=True)
    spoiled = result["spoiled"]
    if spoiled:
        raise TuneFleetError(
            Reason.BLOB_CORRUPT,
            f"{len(spoiled)} blobs are not what they were and were left out: {', '.join(spoiled)}",
            "Check the disk. All else is there; what needs these blobs will say so.",
        )
