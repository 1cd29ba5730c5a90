"""The command line as a whole: its parts, its help, and how errors end it."""

# ruff: noqa: PLC0415 - commands import what they need when they run, so that --help stays fast.

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from tunefleet import __version__
from tunefleet.cli import (
    backup,
    bench,
    campaigns,
    collect,
    dataset,
    devices,
    drain,
    identities,
    model,
    replay,
    serve,
    study,
    tune,
)
from tunefleet.errors import Reason, TuneFleetError

# Met by agents only.
_NOT_FOR_USERS = {Reason.BLOB_UNKNOWN, Reason.LEASE_LOST, Reason.AGENT_UNKNOWN}
_USAGE_ERROR: type[Exception] = typer.BadParameter.__bases__[0]
"""Base of all complaints about arguments; it moved from click into typer with typer 0.27."""


def _exit_codes() -> str:
    codes = [
        f"{reason.value.exit_code} {reason.name.lower().replace('_', ' ')}"
        for reason in Reason
        if reason not in _NOT_FOR_USERS
    ]
    return "[bold]Exit codes:[/bold] 0 done; " + "; ".join(codes) + "."


app = typer.Typer(
    name="tunefleet",
    help="""Tune models on the hardware they will run on.

A coordinator plans and learns; agents on the devices measure.

\bTo try it on this machine:
  $ [green]tunefleet up[/green]                 in one terminal
  $ [green]tunefleet tune model.onnx[/green]    in another

\bCommands find the coordinator by --coordinator, else by TUNEFLEET_COORDINATOR,
else at 127.0.0.1:7460. Listings and shows take --format json.""",
    epilog=_exit_codes(),
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("tune", rich_help_panel="Tuning")(tune.tune)
app.command("collect", rich_help_panel="Learning")(collect.collect)
app.command("study", rich_help_panel="Learning")(study.study)
app.add_typer(model.app, name="model", rich_help_panel="Learning")
app.add_typer(campaigns.app, name="campaigns", rich_help_panel="Tuning")
app.command("bench", rich_help_panel="Tuning")(bench.bench)
app.command("replay", rich_help_panel="Tuning")(replay.replay)
app.add_typer(dataset.app, name="dataset", rich_help_panel="Tuning")
app.add_typer(devices.app, name="devices", rich_help_panel="Fleet")
app.command("drain", rich_help_panel="Fleet")(drain.drain)
app.add_typer(identities.tokens_app, name="tokens", rich_help_panel="Fleet")
app.add_typer(identities.users_app, name="users", rich_help_panel="Fleet")
app.command("login", rich_help_panel="Fleet")(identities.login)
app.command("whoami", rich_help_panel="Fleet")(identities.whoami)
app.command("audit", rich_help_panel="Fleet")(identities.audit)
app.command("up", rich_help_panel="Running TuneFleet")(serve.up)
app.command("serve", rich_help_panel="Running TuneFleet")(serve.serve)
app.command("backup", rich_help_panel="Running TuneFleet")(backup.backup)
app.command("restore", rich_help_panel="Running TuneFleet")(backup.restore)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunefleet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command that this process was started with, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the program's name.

    Returns:
        0, or the exit code of the failure's reason; the failure has been printed.
    """
    try:
        code = app(list(arguments), prog_name="tunefleet", standalone_mode=False)
    except TuneFleetError as e:
        return _fail(e, arguments)
    except _USAGE_ERROR as e:
        return _fail(_usage_error(e), arguments)
    except (KeyboardInterrupt, typer.Abort):
        code = Reason.INTERRUPTED.value.exit_code
    if code == Reason.INTERRUPTED.value.exit_code:
        hint = "Campaigns go on: see `tunefleet campaigns list`."
        return _fail(TuneFleetError(Reason.INTERRUPTED, "interrupted", hint), arguments)
    return code if isinstance(code, int) else 0


def _fail(error: TuneFleetError, arguments: Sequence[str]) -> int:
    from tunefleet.cli.output import print_error

    as_json = "--format=json" in arguments or ("--format", "json") in pairwise(arguments)
    print_error(error, as_json=as_json)
    return error.reason.value.exit_code


def _usage_error(error: Exception) -> TuneFleetError:
    text = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", "tunefleet")
    return TuneFleetError(
        Reason.INVALID_ARGUMENT, " ".join(text.split()), hint=f"See `{path} --help`."
    )
