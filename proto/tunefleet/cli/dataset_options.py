"""What commands that learn from a dataset, or judge by one, have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

PLACE_HELP = "A dataset's folder, a file with trials, or TenSet's measure records."

PlaceArgument = Annotated[
    Path, typer.Argument(metavar="DATASET", help=PLACE_HELP, show_default=False)
]


class Features(StrEnum):
    """What a program is described by."""

    STORES = "stores"
    STEPS = "steps"


FeaturesOption = Annotated[
    Features | None,
    typer.Option(
        "--features",
        help="What describes a program: its buffer stores, as for agents, or its schedule's steps.",
        show_default="stores; steps of TenSet's files",
    ),
]
ModelFeaturesOption = Annotated[
    Features | None,
    typer.Option(
        "--features",
        help="What the model must rank by; another one is refused.",
        show_default="what it was trained for",
    ),
]
PerTaskOption = Annotated[
    int | None,
    typer.Option(
        "--per-task",
        "--sample",
        min=1,
        metavar="N",
        help="Records read of each task of TenSet's files, drawn at random.",
        show_default="128",
    ),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample",
        min=1,
        metavar="N",
        help="Records read of each task of TenSet's files, drawn at random.",
        show_default="128",
    ),
]
ProfileOption = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        metavar="[DEVICE=]FILE.json",
        help="What a device of TenSet's is, as `devices show NAME --format json` prints it; may be "
        "given for several devices.",
        show_default="unknown",
    ),
]


def reading_text(notes: Sequence[str], unusable: Mapping[str, Any]) -> Text:
    """Say what must be known of how a dataset was read, and what of it could not be used.

    Args:
        notes: sentences.
        unusable: ``count``, and ``named`` with ``where`` and ``why`` of the first of them.
    """
    from tunefleet.client.wording import unusable_lines  # noqa: PLC0415 - not for --help

    return Text("\n".join([*notes, *unusable_lines(unusable)]), style="yellow")
