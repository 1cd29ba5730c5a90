"""Candidates run on copies of their inputs in turn, more than the caches hold."""

from __future__ import annotations

import numpy as np
import pytest

from agent.measure.arguments import LEAST_BYTES, input_sets
from agent.tvm_startup import import_tvm

tvm = import_tvm()

SIDE = 512
"""Of square weights: a mebibyte."""
CACHE_BYTES = 4 * 2**20


def tensors(*shapes: tuple[int, ...]) -> list[object]:
    return [tvm.runtime.tensor(np.full(shape, n, "float32")) for n, shape in enumerate(shapes)]


def test_the_inputs_are_more_than_the_cache_holds() -> None:
    sets = input_sets(tensors((1, SIDE), (SIDE, SIDE), (1, SIDE)), CACHE_BYTES)
    assert len(sets) * 2**20 > CACHE_BYTES
    assert len({id(each[1]) for each in sets}) == len(sets)
    for each in sets:
        assert [(tensor.numpy() == n).all() for n, tensor in enumerate(each)] == [True] * 3


def test_the_output_is_shared() -> None:
    arguments = tensors((1, SIDE), (SIDE, SIDE), (1, SIDE))
    assert all(each[2] is arguments[2] for each in input_sets(arguments, CACHE_BYTES))


@pytest.mark.parametrize(
    ("side", "sets"),
    [(4 * SIDE, 2), (int((LEAST_BYTES / 4) ** 0.5) - 8, 1)],
    ids=["larger than the cache", "small"],
)
def test_large_inputs_are_copied_once_and_small_ones_never(side: int, sets: int) -> None:
    assert len(input_sets(tensors((1, side), (side, side), (1, side)), CACHE_BYTES)) == sets


def test_a_program_without_inputs_has_one_set() -> None:
    assert len(input_sets(tensors((SIDE, SIDE)), CACHE_BYTES)) == 1
