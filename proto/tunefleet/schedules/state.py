"""What the variables of a MetaSchedule trace stand for, and the steps found so far."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunefleet.schedules.nest import UNKNOWN_EXTENT, UNKNOWN_PLACE, Block, Loop, Nests
from tunefleet.schedules.step import Step

_MAX_TEXT = 200
_MAX_VALUES = 256
_VARIABLE = re.compile(r"[blv][0-9]{1,9}")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a trace, with the decision taken at it."""

    kind: str
    inputs: list[Any]
    attributes: list[Any]
    outputs: list[str]
    decision: Any = None


class TraceState:
    """Where a reader of a trace stands. Variables that nothing defined stand for the unknown."""

    def __init__(self) -> None:
        self.nests = Nests()
        self.blocks: dict[str, Block] = {}
        self.loops: dict[str, tuple[Block | None, Loop]] = {}
        self.numbers: dict[str, float] = {}
        self.annotations: dict[tuple[Block | Loop, str], int] = {}
        """Which step set an annotation of a block or loop."""
        self.introductions: dict[Block, int] = {}
        """Which step named a block."""
        self._steps: list[Step | None] = []

    def emit(self, kind: str, numbers: Sequence[float], *names: str) -> int:
        """Add a step and return its number."""
        self._steps.append(Step(kind, tuple(float(n) for n in numbers), names))
        return len(self._steps) - 1

    def drop(self, number: int | None) -> None:
        """Take a step back."""
        if number is not None:
            self._steps[number] = None

    def replace_number(self, step: int, index: int, value: float) -> None:
        """Change one of the numbers of a step."""
        old = self._steps[step]
        if old is not None:
            numbers = (*old.numbers[:index], value, *old.numbers[index + 1 :])
            self._steps[step] = Step(old.kind, numbers, old.names)

    def steps(self) -> list[Step]:
        """Return the steps that were not taken back."""
        return [step for step in self._steps if step is not None]

    def block(self, name: Any) -> Block:
        """Return what a variable of a block stands for."""
        if name not in self.blocks:
            self.blocks[name] = Block("", UNKNOWN_PLACE)
        return self.blocks[name]

    def loop(self, name: Any) -> tuple[Block | None, Loop]:
        """Return the block through which a loop was seen, and the loop."""
        if name not in self.loops:
            self.loops[name] = (None, Loop())
        return self.loops[name]

    def where(self, name: Any) -> tuple[float, float, float]:
        """Return block, place and extent of a loop."""
        block, loop = self.loop(name)
        if block is None:
            return (UNKNOWN_PLACE, UNKNOWN_PLACE, loop.extent)
        return (block.number, block.place(loop), loop.extent)

    def number(self, value: Any) -> float:
        """Return what a number or a drawn variable is; the unknown is 0."""
        if isinstance(value, str):
            return self.numbers.get(value, UNKNOWN_EXTENT)
        return finite(value) if isinstance(value, (int, float)) else UNKNOWN_EXTENT

    def values(self, items: Sequence[Any]) -> list[float]:
        """Return all numbers in inputs and attributes: those of blocks and loops where they are."""
        found: list[float] = []
        for value in _flat(items):
            if isinstance(value, str) and value in self.blocks:
                found.append(self.blocks[value].number)
            elif isinstance(value, str) and value in self.loops:
                found += self.where(value)
            elif isinstance(value, (int, float)) or value in self.numbers:
                found.append(self.number(value))
        return found[:_MAX_VALUES]


def finite(value: Any) -> float:
    """Return a number of a trace.

    Raises:
        ValueError: it is infinite or none.
    """
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number


def texts(items: Sequence[Any]) -> list[str]:
    """Return all texts in inputs and attributes that are no variables.

    A text among the inputs is JSON within JSON, unlike one among the attributes.
    """
    found = []
    for value in _flat(items):
        if isinstance(value, str) and not _VARIABLE.fullmatch(value):
            plain = json.loads(value) if value.startswith('"') else value
            found.append(_short(str(plain)))
    return found[:_MAX_VALUES]


def _short(text: str) -> str:
    """Return a text or, for those as long as a layout's index map, its hash."""
    if len(text) <= _MAX_TEXT:
        return text
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _flat(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, dict):
            yield from _flat(list(item.values()))
        elif isinstance(item, list):
            yield from _flat(item)
        else:
            yield item
