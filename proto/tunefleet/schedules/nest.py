"""The loop nests of a program, as far as its trace tells them.

A trace names loops by variables that are new after every look at a block. What a model can use is
which loop of which block a step works on and how long that loop is, so the nests are followed
through the steps. Extents come from tile sizes alone: a trace says nothing of loops that were never
tiled. Where a nest cannot be followed, its loops become unknown ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

UNKNOWN_EXTENT = 0.0
UNKNOWN_PLACE = -1

_LARGEST_EXTENT = 2.0**53
"""Beyond it floats are no longer exact, and no program is meant."""


def product(extents: Iterable[float]) -> float:
    """Multiply extents; what is made of an unknown one, or is too large, is unknown."""
    result = 1.0
    for extent in extents:
        result *= extent
        if not 0.0 < result <= _LARGEST_EXTENT:
            return UNKNOWN_EXTENT
    return result


@dataclass(eq=False)
class Loop:
    """A loop; blocks that were moved under it share it."""

    extent: float = UNKNOWN_EXTENT
    siblings: tuple[Loop, ...] = ()
    """Loops that one split made, itself among them."""


@dataclass(eq=False)
class Block:
    """A block and the loops around it."""

    name: str
    number: int
    loops: list[Loop] = field(default_factory=list)
    complete: bool = False
    """Whether ``loops`` are all; else they are the outermost ones, and further ones are unknown."""

    def place(self, loop: Loop | None) -> int:
        """Return where a loop lies in the nest, 0 being the outermost."""
        for place, one in enumerate(self.loops):
            if one is loop:
                return place
        return UNKNOWN_PLACE


class Nests:
    """All blocks that a program still computes, in the order in which it does."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.root = Block("root", UNKNOWN_PLACE)
        self._by_name: dict[str, Block] = {"root": self.root}
        self._next_number = 0

    def named(self, name: str) -> Block:
        """Return a block by its name; one not seen yet comes last."""
        if name not in self._by_name:
            self.insert(name, len(self.blocks))
        return self._by_name[name]

    def insert(self, name: str, index: int) -> Block:
        """Add a block that a step made."""
        block = Block(name, self._next_number)
        self._next_number += 1
        self._by_name[name] = block
        self.blocks.insert(index, block)
        return block

    def beside(self, block: Block, offset: int) -> Block | None:
        """Return the block so many places after another one, if both are there."""
        if block not in self.blocks:
            return None
        index = self.blocks.index(block) + offset
        return self.blocks[index] if 0 <= index < len(self.blocks) else None

    def place(self, block: Block) -> int:
        """Return where a block comes; one that is not there would come last."""
        return self.blocks.index(block) if block in self.blocks else len(self.blocks)

    def remove(self, block: Block) -> None:
        """Forget a block that was inlined."""
        if block in self.blocks:
            self.blocks.remove(block)

    def look(self, block: Block, count: int) -> list[Loop]:
        """Return the loops of a block of which a step said how many there are."""
        known = block.loops
        if len(known) > count or (block.complete and len(known) != count):
            known = []
        block.loops = known + [Loop() for _ in range(count - len(known))]
        block.complete = True
        return block.loops

    def split(self, loop: Loop, factors: Sequence[float]) -> tuple[list[Loop], float]:
        """Replace a loop by those of a split.

        Args:
            loop: the one to split.
            factors: from the outermost; an unknown one is 0.

        Returns:
            The new loops, and the extent of the old one.
        """
        extent = loop.extent or product(factors)
        inner = product(f for f in factors if f)
        if factors.count(UNKNOWN_EXTENT) == 1 and extent and inner:
            factors = [f or float(math.ceil(extent / inner)) for f in factors]
        made = [Loop(factor) for factor in factors]
        for part in made:
            part.siblings = tuple(made)
        self._replace([loop], made)
        return made, extent

    def fuse(self, loops: Sequence[Loop]) -> Loop:
        """Replace neighbouring loops by one."""
        fused = Loop(product(loop.extent for loop in loops))
        self._replace(loops, [fused])
        return fused

    def reorder(self, order: Sequence[Loop]) -> None:
        """Permute loops among their places."""
        for block in self.blocks:
            moved = [loop for loop in order if loop in block.loops]
            places = sorted(block.place(loop) for loop in moved)
            for place, loop in zip(places, moved, strict=True):
                block.loops[place] = loop

    def move(self, block: Block, target: Block, loop: Loop | None, *, behind: bool) -> None:
        """Put a block under a loop of another one."""
        if block is target or block not in self.blocks or target not in self.blocks:
            return
        self.blocks.remove(block)
        self.blocks.insert(self.blocks.index(target) + behind, block)
        place = target.place(loop)
        block.loops = target.loops[: place + 1]
        block.complete = False

    def factor(self, block: Block, loop: Loop | None) -> Block:
        """Split off a block that reduces along a loop (rfactor); return it.

        It keeps the nest; what remains sums over that loop alone.
        """
        made = self.insert(f"{block.name}_rf", self.place(block))
        made.loops = [Loop(one.extent) for one in block.loops]
        made.complete = block.complete
        if loop is not None:
            others = [one for one in loop.siblings if one is not loop]
            block.loops = [one for one in block.loops if one not in others]
        return made

    def _replace(self, old: Sequence[Loop], new: Sequence[Loop]) -> None:
        for block in self.blocks:
            place = block.place(old[0]) if old else UNKNOWN_PLACE
            if place >= 0 and block.loops[place : place + len(old)] == list(old):
                block.loops[place : place + len(old)] = new
            elif any(loop in block.loops for loop in old):
                block.loops, block.complete = [], False
