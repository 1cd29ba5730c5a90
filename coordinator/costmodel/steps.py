"""Schedule steps as what a model learns from, so that it can rank without lowering.

TLP (ASPLOS'23) showed that such sequences rank programs. What the kinds and their numbers mean is
said in :mod:`tunefleet.schedules.step`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tunefleet.schedules.step import Step

Floats: TypeAlias = NDArray[np.float32]

KINDS: tuple[str, ...] = (
    "workload",
    "block",
    "split",
    "follow_split",
    "follow_fused_split",
    "fuse",
    "reorder",
    "parallel",
    "vectorize",
    "unroll",
    "bind",
    "tensorize",
    "auto_unroll",
    "annotate",
    "storage_align",
    "compute_at",
    "reverse_compute_at",
    "compute_inline",
    "reverse_compute_inline",
    "compute_root",
    "cache_read",
    "cache_write",
    "rfactor",
    "decompose_reduction",
    "add_unit_loop",
    "blockize",
    "reindex",
    "set_scope",
    "transform_layout",
    "transform_block_layout",
    "pad_einsum",
    "decompose_padding",
    "untuned",
    "other",
)
"""The joint vocabulary of both systems; a kind that is not in it counts as ``other``."""

NUMBER_SLOTS = 8
"""A split's block, loop and extent, and five factors: what a GPU's deepest tiling has."""

NAME_SLOTS = 12
"""Signs that stand for a name: two of the hundred names that occur are alike once in 4,096."""

STEP_FEATURES = len(KINDS) + 1 + NUMBER_SLOTS + NAME_SLOTS
"""Values a step: its kind as one of ``KINDS``, its place, its numbers, its names."""

MAX_STEPS = 80
"""Steps of one program a model looks at. MetaSchedule's sequences in the shipped
dataset have 18 steps on median and 41 at most; TLP counts at most 54 transform steps for TenSet's
CPUs and 69 for its GPUs, before which stand a few with the workload's shape. So nothing real is
cut, and as batches are padded to their own longest sequence, the spare places cost nothing."""

SCHEMA_VERSION = 1
"""Of the meaning of kinds and numbers: raise it whenever equal schedules give other values."""

_CUT_FIRST = ("block", "compute_inline", "workload", "annotate", "reorder")
"""What says least of how candidates of one task differ."""


def step_schema_digest() -> str:
    """Return 16 hex digits that name this encoding; a model carries the digits it was made for."""
    schema = {
        "version": SCHEMA_VERSION,
        "kinds": KINDS,
        "numbers": NUMBER_SLOTS,
        "names": NAME_SLOTS,
        "max_steps": MAX_STEPS,
    }
    return hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()[:16]


def shorten(steps: Sequence[Step], most: int = MAX_STEPS) -> list[Step]:
    """Cut a sequence that is too long, what tells candidates apart least first.

    Args:
        steps: any number.
        most: how many may remain.

    Returns:
        At most ``most`` steps, in their order.
    """
    kept = list(steps)
    for kind in _CUT_FIRST:
        spare = len(kept) - most
        if spare <= 0:
            return kept
        of_kind = [i for i, step in enumerate(kept) if step.kind == kind][-spare:]
        dropped = set(of_kind)
        kept = [step for i, step in enumerate(kept) if i not in dropped]
    return kept[:most]


def encode(steps: Sequence[Step]) -> Floats:
    """Encode a schedule for a model: the same values for equal steps, on every machine.

    Numbers x become sign(x) log2(1 + |x|), so that a product of tile sizes is about the sum of
    their values. Names become signs from their SHA-256, those of several names of a step added up.
    Numbers beyond ``NUMBER_SLOTS`` cannot be shown one by one; all numbers together then count as
    one more name, so that the sequence still differs from every other.

    Args:
        steps: at least one; those beyond ``MAX_STEPS`` are cut by :func:`shorten`.

    Returns:
        Float32 [L, STEP_FEATURES], all finite.

    Raises:
        ValueError: there is no step, or a number is not finite.
    """
    if not steps:
        raise ValueError("a schedule of no steps cannot be encoded; name it an untuned one")
    kept = shorten(steps)
    values = np.zeros((len(kept), STEP_FEATURES), np.float32)
    first_number = len(KINDS) + 1
    first_name = first_number + NUMBER_SLOTS
    for place, step in enumerate(kept):
        row = values[place]
        row[_KIND_NUMBER.get(step.kind, _OTHER)] = 1.0
        row[len(KINDS)] = math.log2(1.0 + place)
        shown = step.numbers[:NUMBER_SLOTS]
        row[first_number : first_number + len(shown)] = [_logarithm(x) for x in shown]
        names = step.names
        if len(step.numbers) > NUMBER_SLOTS:
            names = (*names, ",".join(f"{x:g}" for x in step.numbers))
        for index, name in enumerate(names):
            row[first_name:] += _signs(index, name)
    return values


_KIND_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_OTHER = _KIND_NUMBER["other"]


def _logarithm(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"a step has the number {number}, which is not finite")
    return math.copysign(math.log2(1.0 + abs(number)), number)


@lru_cache(maxsize=8192)
def _signs(index: int, name: str) -> Floats:
    # The place is part of the text: a key and a value that change places are another step.
    digest = hashlib.sha256(f"{index}:{name}".encode("utf-8", "replace")).digest()
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[:NAME_SLOTS]
    return (2.0 * bits - 1.0).astype(np.float32)
