"""Options that several commands of the agent share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.session.home import HOME_VARIABLE, default_home

HomeOption = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        envvar=HOME_VARIABLE,
        default_factory=default_home,
        show_default="~/.local/share/tunefleet/agent",
        help="Folder that keeps the agent's id and what is not sent yet.",
    ),
]
