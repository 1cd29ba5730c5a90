"""The command ``tunefleet-agent``."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

import tunefleet
from agent.doctor.command import EXIT_CODES, doctor
from agent.options import HomeOption
from tunefleet.errors import Reason, TuneFleetError

_EXIT_REASONS = (
    Reason.INTERNAL,
    Reason.INVALID_ARGUMENT,
    Reason.INCOMPATIBLE,
    Reason.HOME_IN_USE,
    Reason.NOT_INSTALLED,
    Reason.UNAUTHENTICATED,
    Reason.FORBIDDEN,
)
_EXIT_CODES = "; ".join(
    [
        "Exit codes: 0 stopped",
        *(f"{r.value.exit_code} {r.name.lower().replace('_', ' ')}" for r in _EXIT_REASONS),
        "130 stopped at once by a second signal.",
    ]
)


class LogLevel(StrEnum):
    """What to log at the least."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


app = typer.Typer(
    name="tunefleet-agent",
    help="Measure tensor programs on this machine for a TuneFleet coordinator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunefleet-agent {tunefleet.__version__}")
        raise typer.Exit


@app.callback()
def _agent(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Stand before the subcommands, so that there may be more of them."""


@app.command(epilog=_EXIT_CODES)
def run(
    *,
    coordinator: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            envvar="TUNEFLEET_COORDINATOR",
            help="Address of the coordinator; the agent keeps trying while it is away.",
        ),
    ],
    home: HomeOption,
    name: Annotated[
        str, typer.Option(help="Name in listings, by default made of the host's name.")
    ] = "",
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Label for selectors; may be given repeatedly."),
    ] = None,
    target: Annotated[
        str,
        typer.Option(help="TVM target, such as 'llvm -mcpu=znver4'; by default this machine's."),
    ] = "",
    cores: Annotated[
        int | None, typer.Option(min=1, help="Use so many cores only, by default all.")
    ] = None,
    token: Annotated[
        str,
        typer.Option(
            envvar="TUNEFLEET_TOKEN",
            metavar="TOKEN",
            help="To join with, from `tunefleet tokens create`; needed the first time only.",
            show_default=False,
        ),
    ] = "",
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            envvar="TUNEFLEET_INSECURE",
            help="Plain text, to a coordinator on this machine that was started so.",
        ),
    ] = False,
    idle_timeout: Annotated[
        float,
        typer.Option(min=0, help="Seconds without work after which worker processes end."),
    ] = 120.0,
    drain_on_term: Annotated[
        bool,
        typer.Option(
            "--drain-on-term",
            help="At the first SIGTERM finish the round under way, rather than give it back; a "
            "second gives it back, a third stops at once.",
        ),
    ] = False,
    log_level: Annotated[
        LogLevel, typer.Option(help="Least important messages to log.")
    ] = LogLevel.INFO,
) -> None:
    """Measure on this machine until stopped with Ctrl-C or SIGTERM.

    It joins the coordinator with a token, which pins whom it trusts; from then on both show
    certificates, and it runs code from that coordinator alone.

    The first of these sends what was measured and gives work back, the second stops at once.
    What is measured lies on the disk until the coordinator has acknowledged it, also while it is
    away for days; with 512 MiB waiting, some 10,000 trials, the agent takes no more work until
    there is room. `tunefleet devices list` shows how much waits.
    """
    # Only now: --help shall not wait for gRPC.
    from agent.main import Options, run_agent  # noqa: PLC0415
    from agent.session.session import Settings  # noqa: PLC0415
    from tunefleet.identity.tokens import parse_token  # noqa: PLC0415

    settings = Settings(
        coordinator=coordinator,
        name=name,
        labels=dict(_parse_label(each) for each in label or ()),
        target=target,
        idle_s=idle_timeout,
        token=parse_token(token) if token else None,
        insecure=insecure,
    )
    options = Options(
        settings, home=home, cores=cores, log_level=log_level, drain_on_term=drain_on_term
    )
    code = run_agent(options)
    raise typer.Exit(code)


app.command(epilog=EXIT_CODES)(doctor)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except TuneFleetError as e:
        sys.stderr.write(f"tunefleet-agent: {e.message}\n{e.hint}\n")
        sys.exit(e.reason.value.exit_code)


def _parse_label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise typer.BadParameter(f"{text!r} does not look like KEY=VALUE", param_hint="--label")
    return key, value
