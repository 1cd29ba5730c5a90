"""Every test that ``docs/SECURITY.md`` names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_NAMED = re.compile(r"`((?:tests/|…)[^`]*)`")


def named() -> list[str]:
    """List the tests in the table; ``…`` stands for the file and class of the one before."""
    found: list[str] = []
    for name in _NAMED.findall((ROOT / "docs" / "SECURITY.md").read_text()):
        if name.startswith("…"):
            [last] = name.removeprefix("…::").split("::")
            found.append(f"{found[-1].rpartition('::')[0]}::{last}")
        else:
            found.append(name)
    return found


@pytest.mark.parametrize("name", named())
def test_a_test_that_is_named_is_there(name: str) -> None:
    path, *parts = name.split("::")
    body = ast.parse((ROOT / path).read_text()).body
    for part in parts:
        [definition] = [
            node
            for node in body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == part
        ]
        body = definition.body


def test_the_table_is_long() -> None:
    assert len(named()) > 30
