"""Thousands of short texts from one row.

SQLite's driver lets other threads go on between two rows, and they do not hurry to give way again:
reading many rows beside a busy event loop takes many times as long as alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Select, func, select

_BETWEEN = ","


def in_one_row(query: Select[Any]) -> Select[Any]:
    """Return a query for all texts that another one finds; none of them may hold a comma."""
    found = query.subquery()
    return select(func.aggregate_strings(next(iter(found.c)), _BETWEEN))


def texts(
    connection: Connection, query: Select[Any], parameters: Mapping[str, Any]
) -> frozenset[str]:
    """Run what :func:`in_one_row` made."""
    joined: str | None = connection.execute(query, parameters).scalar_one()
    return frozenset(joined.split(_BETWEEN)) if joined else frozenset()
