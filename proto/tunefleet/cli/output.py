"""What commands print: tables for people, JSON for scripts, errors for both."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

from tunefleet.errors import Reason, TuneFleetError

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160
"""Columns of tables that go to a file or a pipe, where no terminal says how many it has."""


def make_console(file: TextIO | None = None) -> Console:
    """Make a console that takes text as it is: names may hold brackets or colons."""
    from rich.console import Console  # noqa: PLC0415 - only commands that print tables pay for it

    stream = file or sys.stdout
    return Console(
        file=stream,
        width=None if stream.isatty() else PIPE_WIDTH,
        markup=False,
        emoji=False,
        highlight=False,
    )


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(to_json(value), indent=2, ensure_ascii=False))  # noqa: T201


def to_json(value: Any) -> Any:
    """Turn a value into what JSON knows.

    Records become objects with their fields and properties, moments become ISO 8601 in UTC.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        names += [n for n, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: to_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def print_error(error: TuneFleetError, *, as_json: bool) -> None:
    """Say on stderr what happened and what to do next; as JSON also on stdout."""
    # Leaving with Ctrl-C is no mistake of anybody's.
    label = "" if error.reason is Reason.INTERRUPTED else "error: "
    print(f"{label}{error.message}", file=sys.stderr)  # noqa: T201
    print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
    if as_json:
        content = {
            "reason": error.reason.name,
            "message": error.message,
            "hint": error.hint,
        }
        print_json({"error": content})
