"""Schedule steps from the transform steps of TVM's former auto-scheduler."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tenset_lines import GRAPH, KEY, tiled

from coordinator.costmodel.steps import encode
from coordinator.costmodel.steps_tenset import check_transform, tenset_steps, workload_steps
from tunefleet.schedules.step import Step

NAMELESS = json.dumps(["f"])


def steps_of(transform: list[list[Any]]) -> list[Step]:
    """Steps without those of the workload."""
    return tenset_steps(NAMELESS, check_transform(transform))[1:]


SPLIT = ["SP", 2, 0, 512, [4, 2, 8], 1]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (["SP", 2, 0, 512, [4, 2, 8], 1], Step("split", (2, 0, 512, 8, 4, 2, 8))),
        (["SP", 2, 0, 512, [4, 2], 0], Step("split", (2, 0, 512, 4, 2, 64))),
        (["SP", 2, 0, 10, [4], 1], Step("split", (2, 0, 10, 3, 4))),
        (["SP", 2, 0, 0, [4], 1], Step("split", (2, 0, 0, 0, 4))),
        (["RE", 2, [1, 0]], Step("reorder", (2, 2, 0, 1, 0))),
        (["FU", 2, [0, 1]], Step("fuse", (2, 0, 0, 2))),
        (["FU", 2, []], Step("fuse", (2, 0, 1, 0))),
        (["AN", 2, 0, 0], Step("annotate", (2, 0, 0, 0))),
        (["AN", 2, 0, 1], Step("unroll", (2, 0, 0))),
        (["AN", 2, 0, 2], Step("vectorize", (2, 0, 0))),
        (["AN", 2, 0, 3], Step("parallel", (2, 0, 0))),
        (["AN", 2, 0, 4], Step("bind", (2, 0, 0), ("vthread",))),
        (["AN", 2, 0, 5], Step("bind", (2, 0, 0), ("blockIdx.x",))),
        (["AN", 2, 0, 6], Step("bind", (2, 0, 0), ("threadIdx.x",))),
        (["AN", 2, 0, 11], Step("tensorize", (2, 0, 0))),
        (["PR", 2, 0, "auto_unroll_max_step$512"], Step("auto_unroll", (2, 0, 0, 512, 1))),
        (["PR", 2, 0, "debug_skip_region"], Step("annotate", (2, 0, 0, 0), ("debug_skip_region",))),
        (["SA", 2, 0, 16, 8], Step("storage_align", (2, 0, 0, 16, 8))),
        (["CA", 1, 2, 3], Step("compute_at", (1, 3, 0, 2))),
        (["CI", 1], Step("compute_inline", (1,))),
        (["CR", 1], Step("compute_root", (1,))),
        (["CHR", 1, "shared", [3]], Step("cache_read", (1, -1, 0, 3), ("shared",))),
        (["CHW", 1, "local"], Step("cache_write", (1, -1, 0), ("local",))),
        (["RF", 1, 2, 0], Step("rfactor", (1, 2, 0, 0))),
        (["NEW", 1, [2], "x"], Step("other", (1, 2), ("NEW", "x"))),
    ],
)
def test_each_kind_of_step(step: list[Any], expected: Step) -> None:
    assert steps_of([step]) == [expected]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (["FSP", 3, 0, 0, 1], Step("follow_split", (3, 0, 512, 8, 64))),
        (["FSP", 3, 0, 0, 2], Step("follow_split", (3, 0, 512, 8, 4, 16))),
        (["FSP", 3, 0, 0, 3], Step("follow_split", (3, 0, 512, 8, 4, 2, 8))),
        (["FSP", 3, 0, 7, 1], Step("follow_split", (3, 0, 0, 0))),
        (["FFSP", 3, 0, [0, 0], 1, 1], Step("follow_fused_split", (3, 0, 0, 0, 4))),
        (["FFSP", 3, 0, [0], 9, 1], Step("follow_fused_split", (3, 0, 0, 0, 0))),
    ],
)
def test_a_split_that_follows_another_has_its_sizes(step: list[Any], expected: Step) -> None:
    assert steps_of([SPLIT, step])[1] == expected


def test_extents_are_followed_through_the_loops() -> None:
    assert steps_of(tiled())[2:] == [
        Step("split", (2, 0, 512, 8, 4, 2, 8)),
        Step("split", (2, 4, 256, 16, 16)),
        Step("reorder", (2, 6, 0, 0, 4, 1, 2, 5, 3)),
        Step("follow_split", (3, 0, 512, 8, 4, 16)),
        Step("compute_at", (2, 1, 4, 3)),
        Step("fuse", (3, 0, 32, 2)),
        Step("parallel", (3, 0, 32)),
        Step("auto_unroll", (2, 0, 8, 64, 1)),
        Step("vectorize", (2, 5, 8)),
    ]


@pytest.mark.parametrize(
    ("insertion", "stage"), [(["CHW", 2, "local"], 3), (["CHR", 1, "shared", [2]], 3)]
)
def test_a_stage_that_is_inserted_moves_the_later_ones(insertion: list[Any], stage: int) -> None:
    found = steps_of([SPLIT, insertion, ["AN", stage, 3, 2]])
    assert found[-1] == Step("vectorize", (stage, 3, 8))


def test_the_shape_of_the_workload_comes_first() -> None:
    assert tenset_steps(KEY, check_transform(tiled()))[:3] == [
        Step("workload", (1, 56, 56, 64, 3, 3, 64, 64), (GRAPH,)),
        Step("workload", (1, 56, 56, 64)),
        Step("compute_inline", (1,)),
    ]


def test_a_workload_may_be_a_function_with_arguments_of_its_own() -> None:
    key = json.dumps(["conv", 1, [2, [3]], "float32", None, True, 0.5])
    assert workload_steps(key) == [Step("workload", (1, 2, 3, 0, 1, 0.5), ("conv", "float32"))]


def test_a_program_without_steps_is_the_untuned_one() -> None:
    assert tenset_steps(NAMELESS, []) == [Step("workload", (), ("f",)), Step("untuned")]


def test_one_size_tells_two_schedules_apart() -> None:
    one, same, other = (
        encode(tenset_steps(KEY, tiled(lengths))) for lengths in [(4, 2, 8), (4, 2, 8), (4, 4, 4)]
    )
    assert (one == same).all()
    assert one.shape == other.shape
    assert (one != other).any()


def test_both_systems_say_the_same_of_the_same() -> None:
    """A loop of 64 split into 16 and 4, of which the inner one is vectorized."""
    # Imported here: the other tests of this file need nothing of traces.
    from tunefleet.schedules.trace import trace_steps

    trace = [
        ["GetSBlock", [], ["C", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1"]],
        ["Split", ["l1", 16, 4], [True, False], ["l2", "l3"]],
        ["Vectorize", ["l3"], [], []],
    ]
    assert trace_steps(json.dumps([trace, []]))[1:] == steps_of(
        [["SP", 0, 0, 64, [4], 1], ["AN", 0, 1, 2]]
    )


@pytest.mark.parametrize(
    "transform",
    [
        {},
        [[]],
        [[3]],
        ["SP"],
        [["SP", 2, 0, 512, 4, 1]],
        [["SP", 2, 0, 512, [4]]],
        [["SP", -1, 0, 512, [4], 1]],
        [["SP", 2, 10**9, 512, [4], 1]],
        [["SP", 2, 0, 512, [4.5], 1]],
        [["SP", 2, 0, 512, [None], 1]],
        [["FU", 2, [10**9]]],
        [["RE", 2, [-1]]],
        [["AN", 2, 0, True]],
        [["PR", 2, 0, 512]],
        [["CA", 1, 2, 10**9]],
        [["CI", 10**30]],
        [["NEW", [1] * 1_000]],
        [["CI", 0]] * 2_000,
    ],
)
def test_what_are_no_transform_steps_is_refused(transform: Any) -> None:
    with pytest.raises(ValueError, match=r"step|number"):
        check_transform(transform)


@pytest.mark.parametrize("key", ["", "{}", "[]", "[1]", '["f", {}]', '["f", 1e400]', "[" * 9_999])
def test_what_is_no_workload_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"workload key|number"):
        workload_steps(key)


WHOLE = st.integers(-3, 40) | st.integers()
ITEMS = WHOLE | st.lists(WHOLE, max_size=6) | st.sampled_from(["local", "auto_unroll_max_step$16"])
CODES = st.sampled_from(
    ["AN", "FU", "PR", "RE", "SP", "FSP", "FFSP", "SA", "CA", "CI", "CR", "CHR", "CHW", "RF", "?"]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(CODES, st.lists(ITEMS, max_size=5)), max_size=20))
def test_what_passes_the_check_can_be_encoded(drawn: list[tuple[str, list[Any]]]) -> None:
    passed = []
    for code, items in drawn:
        try:
            passed += check_transform([[code, *items]])
        except ValueError:
            continue
    encode(tenset_steps(KEY, passed))
