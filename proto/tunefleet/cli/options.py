"""Options that several commands share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tunefleet.client import TuneFleet

DEFAULT_LISTEN = "127.0.0.1:7460"


class OutputFormat(StrEnum):
    """Who reads the output."""

    TEXT = "text"
    JSON = "json"


CoordinatorOption = Annotated[
    str,
    typer.Option(
        "--coordinator",
        envvar="TUNEFLEET_COORDINATOR",
        metavar="HOST:PORT",
        help="Where the coordinator listens.",
    ),
]
FormatOption = Annotated[
    OutputFormat,
    typer.Option("--format", help="Tables for people, or one JSON object for scripts."),
]
DevicesOption = Annotated[
    str,
    typer.Option(
        metavar="SELECTOR",
        help="Which devices take part, as terms separated by commas, such as "
        "arch=x86_64,site=lab; all if left out.",
        show_default=False,
    ),
]
CampaignNameOption = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="Name in listings; the file's if left out.", show_default=False
    ),
]
CampaignArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The campaign's id, an unambiguous beginning of it, or its name.",
        show_default=False,
    ),
]


def connect(coordinator: str) -> AbstractContextManager[TuneFleet]:
    """Open a connection for one command.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, the address is not HOST:PORT.
    """
    # ruff: noqa: PLC0415 - gRPC takes longer to import than --help may take.
    import stamina.instrumentation

    from tunefleet.client import TuneFleet

    # By default each retry is logged, on stdout where structlog is not configured.
    stamina.instrumentation.set_on_retry_hooks(())
    return TuneFleet(coordinator)
