"""``tunefleet serve`` and ``tunefleet up``: running a coordinator, alone or with an agent."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunefleet.cli.options import DEFAULT_LISTEN

_DATABASE_VARIABLE = "TUNEFLEET_DATABASE"

ListenOption = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Where to listen; 0.0.0.0:7460 lets other machines in. With port 0 a free one is "
        "chosen.",
    ),
]

InsecureOption = Annotated[
    bool,
    typer.Option(
        "--insecure",
        envvar="TUNEFLEET_INSECURE",
        help="Plain text without certificates: everybody on this machine may do everything. "
        "Loopback only.",
    ),
]


def serve(
    *,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with all of the coordinator's state; "
            "~/.local/share/tunefleet/coordinator if left out.",
            show_default=False,
        ),
    ] = None,
    listen: ListenOption = DEFAULT_LISTEN,
    enrolment_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Where agents and users join; the port after that of --listen if left out.",
            show_default=False,
        ),
    ] = None,
    insecure: InsecureOption = False,
    base_model: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Cost model that a new folder begins with, as `tunefleet model train` writes it, "
            "or `none` to learn from nothing; the one shipped if left out.",
            show_default=False,
        ),
    ] = "",
    blob_quota: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="How much all blobs (models, datasets, results) may take before uploads are "
            "refused: a size such as 200GB, a share of the disk such as 80%, or `none`; 50% if "
            "left out, to leave others half of it.",
            show_default=False,
        ),
    ] = "",
    drain_timeout: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="When stopped, give out no more work and wait so long at the most for rounds "
            "under way, such as 10m; a second signal ends the wait. Without it agents go on by "
            "themselves and report to the next start.",
            show_default=False,
        ),
    ] = "",
    database: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar=_DATABASE_VARIABLE,
            help="PostgreSQL database for the state, such as postgresql://user@host/database; "
            "SQLite in the folder if left out.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Run a coordinator in the foreground, with its log on stderr.

    \bIt can be stopped and started at any moment: campaigns go on where they were.
    The address it listens on is written to run/address in its folder.

    \bAll connections use TLS, and both sides show certificates, which the coordinator's own
    authority signs. Whoever owns its folder is admin: commands on the same machine find the
    credentials in it. Others join with a token from `tunefleet tokens create`.

    \bExamples:
      $ tunefleet serve
      $ tunefleet serve --home /srv/tunefleet --listen 0.0.0.0:7460
      $ tunefleet serve --database postgresql://tunefleet@db.lab/tunefleet
    """
    from tunefleet.cli.installed import require_coordinator
    from tunefleet.cli.parsing import parse_duration

    require_coordinator()
    folder = home or default_home() / "coordinator"
    command = [sys.executable, "-m", "coordinator", "--home", str(folder), "--listen", listen]
    if insecure:
        command.append("--insecure")
    if enrolment_port is not None:
        command += ["--enrolment-port", str(enrolment_port)]
    if base_model:
        command += ["--base-model", base_model]
    if blob_quota:
        command += ["--blob-quota", blob_quota]
    if drain_timeout:
        command += ["--drain-timeout", str(parse_duration(drain_timeout))]
    if database:
        # Not as an argument: a list of processes would show the password.
        os.environ[_DATABASE_VARIABLE] = database
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def up(
    *,
    home: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for the state of both and their logs; ~/.local/share/tunefleet if left "
            "out.",
            show_default=False,
        ),
    ] = None,
    listen: ListenOption = DEFAULT_LISTEN,
    insecure: InsecureOption = False,
    logs: Annotated[
        bool, typer.Option("--logs", help="Show the logs here, beside writing them to files.")
    ] = False,
) -> None:
    """Run a coordinator and an agent on this machine, until Ctrl-C.

    Logs go to DIR/logs. If either of the two ends, the other is ended as well.

    \bExamples:
      $ tunefleet up
      $ tunefleet up --home /tmp/try --listen 127.0.0.1:0 --logs
    """
    from tunefleet.cli.installed import require_agent, require_coordinator
    from tunefleet.cli.local_fleet import run_local_fleet
    from tunefleet.cli.output import make_console

    require_coordinator()
    require_agent()
    code = run_local_fleet(
        home or default_home(),
        listen,
        console=make_console(sys.stderr),
        show_logs=logs,
        insecure=insecure,
    )
    raise typer.Exit(code)


def default_home() -> Path:
    """Return the folder that holds TuneFleet's state on this machine unless told otherwise."""
    chosen = os.environ.get("TUNEFLEET_HOME")
    return Path(chosen) if chosen else Path.home() / ".local/share/tunefleet"
