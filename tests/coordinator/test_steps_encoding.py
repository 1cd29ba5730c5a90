"""Schedule steps as values for a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.costmodel.steps import (
    KINDS,
    MAX_STEPS,
    NAME_SLOTS,
    NUMBER_SLOTS,
    STEP_FEATURES,
    encode,
    shorten,
    step_schema_digest,
)
from tunefleet.schedules.step import Step

STEPS = st.builds(
    Step,
    st.sampled_from([*KINDS, "a kind of the future"]),
    st.lists(st.floats(-1e9, 1e9), max_size=40).map(tuple),
    st.lists(st.text(max_size=20), max_size=3).map(tuple),
)


@settings(deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=120))
def test_every_sequence_becomes_bounded_finite_values(steps: list[Step]) -> None:
    values = encode(steps)
    assert values.shape == (min(len(steps), MAX_STEPS), STEP_FEATURES)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values[:, : len(KINDS)].sum(axis=1), 1.0)
    np.testing.assert_array_equal(values, encode(steps))


def test_values_lie_where_the_description_says() -> None:
    row = encode([Step("untuned"), Step("split", (0, -1, 1024), ("x",))])[1]
    assert row[KINDS.index("split")] == 1.0
    assert row[len(KINDS)] == 1.0, "log2 of one plus the place"
    numbers = row[len(KINDS) + 1 : len(KINDS) + 1 + NUMBER_SLOTS]
    np.testing.assert_allclose(numbers[:3], [0.0, -1.0, math.log2(1025)], rtol=1e-6)
    assert not numbers[3:].any()
    assert set(row[-NAME_SLOTS:]) == {-1.0, 1.0}


def test_names_are_encoded_the_same_on_every_machine() -> None:
    signs = encode([Step("block", (), ("conv2d_nhwc",))])[0, -NAME_SLOTS:]
    # printf '0:conv2d_nhwc' | sha256sum begins with c44.
    np.testing.assert_array_equal(signs > 0, [int(bit) for bit in f"{0xC44:012b}"])


def test_numbers_beyond_the_slots_still_count() -> None:
    order = tuple(range(20))
    other = (*order[:-2], 19, 18)
    assert not np.array_equal(encode([Step("reorder", order)]), encode([Step("reorder", other)]))


def test_the_place_of_a_name_counts() -> None:
    one, other = Step("annotate", (), ("a", "b")), Step("annotate", (), ("b", "a"))
    assert not np.array_equal(encode([one]), encode([other]))


def test_a_kind_that_is_not_known_counts_as_other() -> None:
    assert encode([Step("of the future")])[0, KINDS.index("other")] == 1.0


def test_what_is_too_long_loses_what_says_least() -> None:
    split = Step("split", (0, 0, 8, 2, 4))
    steps = [Step("block", (0,))] * 30 + [split] * (MAX_STEPS - 10) + [Step("reorder", (0,))]
    kept = shorten(steps)
    assert len(kept) == MAX_STEPS
    assert kept.count(split) == MAX_STEPS - 10
    assert kept[-1].kind == "reorder"
    assert shorten([split] * (MAX_STEPS + 5)) == [split] * MAX_STEPS


def test_nothing_and_the_infinite_are_refused() -> None:
    with pytest.raises(ValueError, match="untuned"):
        encode([])
    with pytest.raises(ValueError, match="not finite"):
        encode([Step("split", (math.inf,))])


def test_the_schema_has_a_name() -> None:
    """Change it knowingly: models that were made for another are refused."""
    assert step_schema_digest() == "e7c5d64ca6e34aa4"
