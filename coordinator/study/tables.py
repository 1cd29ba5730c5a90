"""What a study found, as tables that people and programs can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from coordinator.study.evaluation import Interval

Value: TypeAlias = str | int | float | Interval | None


@dataclass(frozen=True)
class Table:
    """Rows under a header."""

    name: str
    """For files and for ``--format json``."""
    caption: str
    """What it shows, how it was computed, and what it does not show."""
    header: tuple[str, ...]
    rows: list[tuple[Value, ...]] = field(default_factory=list)

    def add(self, *values: Value) -> None:
        """Add a row.

        Raises:
            ValueError: it does not fit the header.
        """
        if len(values) != len(self.header):
            raise ValueError(f"{len(values)} values under {len(self.header)} headings")
        self.rows.append(values)

    def markdown(self) -> str:
        """Write it as Markdown, intervals in brackets."""
        lines = [self.caption, "", _line(self.header), _line(["---"] * len(self.header))]
        lines += [_line([_text(value) for value in row]) for row in self.rows]
        return "\n".join(lines) + "\n"

    def json(self) -> dict[str, Any]:
        """Return it as JSON values; intervals are objects with value, low and high."""
        return {
            "name": self.name,
            "caption": self.caption,
            "rows": [
                {name: _plain(value) for name, value in zip(self.header, row, strict=True)}
                for row in self.rows
            ],
        }


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _plain(value: Value) -> Any:
    if isinstance(value, Interval):
        return {key: _plain(part) for key, part in asdict(value).items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
