"""A whole schedule as one row of numbers."""

from __future__ import annotations

import json
import math
import struct

import pytest

from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.leases import BASELINE_TRACE
from tunefleet.schedules.row import row_of_steps, schedule_row
from tunefleet.schedules.step import Step


def values(row: bytes) -> list[float]:
    return list(struct.unpack(f"<{PROGRAM_FEATURES_PER_STORE}f", row))


def of(*steps: Step) -> list[float]:
    return values(row_of_steps(steps))


def logarithm(number: float) -> float:
    return math.copysign(math.log2(1 + abs(number)), number)


def trace(factor: int) -> str:
    instructions = [
        ["GetSBlock", [], ["matmul", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1", "l2"]],
        ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
        ["Split", ["l1", "v3", "v4"], [True, False], ["l5", "l6"]],
        ["Parallel", ["l5"], [], []],
    ]
    return json.dumps([instructions, [[2, [factor, 4]]]])


SPLIT = Step("split", (0, 1, 64, 4, 16))


def test_a_schedule_is_counts_of_its_steps_and_numbers_of_the_first() -> None:
    one, none = of(SPLIT), of()
    assert not any(none)
    # The count; then block, extent and factors of the one split: block 0 is 0.
    assert sorted(value for value in one if value) == pytest.approx(
        sorted(map(logarithm, (1, 64, 4, 16)))
    )
    assert max(one.index(logarithm(1)), 0) == 0


def test_a_later_step_of_a_kind_stands_behind_the_earlier() -> None:
    other = Step("split", (0, 0, 100, 10, 10))
    both = of(SPLIT, other)
    swapped = of(other, SPLIT)
    assert both != swapped
    assert sorted(both) == sorted(swapped)
    # Steps of other kinds are no reason to move.
    assert of(SPLIT, Step("untuned"), other)[16:] == both[16:]


def test_steps_beyond_those_shown_are_counted_alone() -> None:
    ten, twelve = of(*[SPLIT] * 10), of(*[SPLIT] * 12)
    assert [n for n, pair in enumerate(zip(ten, twelve, strict=True)) if pair[0] != pair[1]] == [0]
    assert twelve[0] == pytest.approx(math.log2(13))


def test_numbers_beyond_those_shown_are_cut_off() -> None:
    long = Step("split", (0, 1, 64, 4, 4, 2, 2, 1, 9, 9, 9))
    assert of(long) == of(Step("split", (0, 1, 64, 4, 4, 2, 2, 1)))


def test_kinds_without_a_place_are_counted_together() -> None:
    assert of(Step("reindex", (1, 2)), Step("made_up")) == of(Step("other"), Step("other", (5,)))
    assert sum(value != 0 for value in of(Step("made_up", (7, 7)))) == 1


def test_a_number_keeps_its_sign() -> None:
    assert min(of(Step("compute_at", (0, -1, 0, 0)))) == logarithm(-1)


def test_equal_traces_give_equal_rows_and_others_do_not() -> None:
    assert schedule_row(trace(8)) == schedule_row(json.dumps(json.loads(trace(8)), indent=1))
    assert schedule_row(trace(8)) != schedule_row(trace(16))


def test_every_value_is_finite() -> None:
    for text in (trace(8), trace(10**300), trace(-(10**300)), BASELINE_TRACE):
        row = schedule_row(text)
        assert len(row) == 4 * PROGRAM_FEATURES_PER_STORE
        assert all(map(math.isfinite, values(row)))


def test_a_program_as_it_was_given_is_its_own_kind() -> None:
    baseline = values(schedule_row(BASELINE_TRACE))
    assert [value for value in baseline if value] == [1.0]


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        "null",
        "7",
        "[[[]], []]",
        '[[["Split", ["l9"], [], []]], 3]',
        "[" * 100_000,
    ],
)
def test_what_is_no_trace_is_refused(odd: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        schedule_row(odd)
