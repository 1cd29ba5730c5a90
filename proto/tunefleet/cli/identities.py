"""``tunefleet tokens``, ``users``, ``login``, ``whoami``, ``audit``: who may do what, and did."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tunefleet.cli.options import (
    DEFAULT_LISTEN,
    CoordinatorOption,
    FormatOption,
    OutputFormat,
    connect,
)
from tunefleet.errors import Reason, TuneFleetError

if TYPE_CHECKING:
    from tunefleet.client.identities import NewToken

tokens_app = typer.Typer(
    help="Make, list and revoke the tokens that let machines and people in.", no_args_is_help=True
)
users_app = typer.Typer(
    help="Let people in, list who was let in, shut them out.", no_args_is_help=True
)


class UserRole(StrEnum):
    """What a person may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


TtlOption = Annotated[
    str, typer.Option(metavar="TIME", help="How long the token is good, such as 10m or 24h.")
]


@tokens_app.command("create")
def create_token(
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Label of the devices that join with it, whatever they say; may be repeated.",
            show_default=False,
        ),
    ] = None,
    uses: Annotated[int, typer.Option(min=1, help="How many devices may join with it.")] = 1,
    ttl: TtlOption = "1h",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Make a token with which devices join, and print how.

    \bThe token pins this coordinator: a device that joins with it trusts no other. It is shown
    this once; the coordinator keeps only its hash.

    \bExamples:
      $ tunefleet tokens create
      $ tunefleet tokens create --label site=lab --uses 10 --ttl 1h
      $ tunefleet tokens create --format json | jq -r .text
    """
    from tunefleet.cli.parsing import parse_duration

    labels = dict(_label(text) for text in label or ())
    with connect(coordinator) as fleet:
        made = fleet.create_token(labels=labels, uses=uses, ttl_s=parse_duration(ttl))
    _show(made, "tunefleet-agent run --coordinator {} --token", coordinator, output_format)


@tokens_app.command("list")
def list_tokens(
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List tokens, newest first; their secrets are known to nobody."""
    from tunefleet.cli.identity_tables import tokens_table
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        tokens = fleet.tokens()
    if output_format is OutputFormat.JSON:
        print_json({"tokens": tokens})
    else:
        make_console().print(tokens_table(tokens) if tokens else "No tokens were made yet.")


@tokens_app.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="The token's id.")],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
) -> None:
    """Make a token useless at once. Who joined with it stays; see `users revoke`."""
    from tunefleet.cli.output import make_console

    with connect(coordinator) as fleet:
        fleet.revoke_token(token_id)
    make_console().print(f"Nobody can join with token {token_id} any more.")


@users_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who is to be let in.")],
    role: Annotated[
        UserRole, typer.Option(help="What they may do; each includes those before it.")
    ] = UserRole.OPERATOR,
    ttl: TtlOption = "24h",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Make a token with which one person joins, and print how.

    \bViewers look at campaigns, devices and models. Operators also start and end campaigns,
    export datasets and put models in use. Admins also let others in.

    \bExamples:
      $ tunefleet users add ada --role viewer
    """
    from tunefleet.cli.parsing import parse_duration

    with connect(coordinator) as fleet:
        made = fleet.create_token(role.value, name=name, ttl_s=parse_duration(ttl))
    _show(made, "tunefleet login --coordinator {}", coordinator, output_format)


@users_app.command("list")
def list_users(
    agents: Annotated[bool, typer.Option("--agents", help="List the agents, too.")] = False,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """List who was let in, and until when their certificates are good."""
    from tunefleet.cli.identity_tables import identities_table
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        found = [each for each in fleet.identities() if agents or each.role != "agent"]
    if output_format is OutputFormat.JSON:
        print_json({"identities": found})
    else:
        make_console().print(identities_table(found) if found else "Nobody was let in yet.")


@users_app.command("revoke")
def revoke_user(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A person's name, or a device's name or id.")
    ],
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
) -> None:
    """Shut out a person or a device at once; what it is doing is broken off.

    A device's round goes to another. A device that was shut out stays out for good; after its
    agent's folder was removed, the machine can join as a new device.
    """
    from tunefleet.cli.output import make_console

    with connect(coordinator) as fleet:
        gone = fleet.revoke(name)
    make_console().print(f"The {gone.role} {gone.name} is shut out.")


def login(
    token: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN",
            envvar="TUNEFLEET_TOKEN",
            help="What `tunefleet users add` printed; asked for, unseen, if left out.",
            show_default=False,
        ),
    ] = "",
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
) -> None:
    """Join a coordinator with a token; commands find the credentials from then on.

    \bThe key is made here and stays here, in ~/.config/tunefleet/credentials.

    \bExamples:
      $ tunefleet login --coordinator lab.example.com:7460
    """
    from tunefleet.cli.output import make_console
    from tunefleet.client.identities import login as join

    if not token:
        if not sys.stdin.isatty():
            raise TuneFleetError(Reason.INVALID_ARGUMENT, "there is no token to join with")
        token = typer.prompt("Token", hide_input=True)
    joined, folder = join(coordinator, token)
    make_console().print(
        f"Joined {coordinator} as {joined.name}, {joined.role}, for "
        f"{joined.valid_for_s / 86400:.0f} days. Credentials are in {folder}."
    )


def whoami(
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show as whom the coordinator knows us, and what we may do."""
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        me = fleet.whoami()
    if output_format is OutputFormat.JSON:
        print_json({"whoami": me})
        return
    until = "" if me.valid_for_s is None else f", for {me.valid_for_s / 86400:.0f} more days"
    make_console().print(f"{me.name}, {me.role}{until}")


def audit(
    limit: Annotated[int, typer.Option(min=1, help="How many entries.")] = 50,
    before: Annotated[
        int, typer.Option(min=0, metavar="SEQ", help="Only those before this one.")
    ] = 0,
    coordinator: CoordinatorOption = DEFAULT_LISTEN,
    output_format: FormatOption = OutputFormat.TEXT,
) -> None:
    """Show what people did and what was refused to whom, newest first."""
    from tunefleet.cli.identity_tables import audit_table
    from tunefleet.cli.output import make_console, print_json

    with connect(coordinator) as fleet:
        entries = fleet.audit(limit, before)
    if output_format is OutputFormat.JSON:
        print_json({"entries": entries})
    else:
        make_console().print(audit_table(entries) if entries else "Nothing was done yet.")


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, f"the label {text!r} does not look like KEY=VALUE"
        )
    return key, value


def _show(made: NewToken, command: str, coordinator: str, output_format: OutputFormat) -> None:
    """Print a token with the command that it is for, whose ``{}`` is the coordinator's address."""
    import socket

    from tunefleet.cli.output import make_console, print_json
    from tunefleet.identity.credentials import is_loopback

    if output_format is OutputFormat.JSON:
        print_json({"text": made.text, "token": made.token, "loopback_only": made.loopback_only})
        return
    many = "once" if made.token.uses == 1 else f"{made.token.uses} times"
    until = made.token.expires_at.astimezone().strftime("%Y-%m-%d %H:%M")
    port = coordinator.rpartition(":")[2]
    if is_loopback(coordinator) and not made.loopback_only:
        # For other machines, which know this one by its name.
        coordinator = f"{socket.gethostname()}:{port}"
    console = make_console()
    console.print(f"Good until {until}, {many}:")
    console.out(f"  {command.format(coordinator)} {made.text}")
    if made.loopback_only:
        console.print(
            "On this machine only, as the coordinator listens nowhere else. For others, start it "
            f"with `tunefleet serve --listen 0.0.0.0:{port}`."
        )
