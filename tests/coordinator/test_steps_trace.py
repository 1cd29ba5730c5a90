"""Schedule steps from MetaSchedule's traces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.costmodel.steps import encode
from coordinator.dataset.reading import Refused, open_trials, read_trials
from tunefleet.schedules.step import Step
from tunefleet.schedules.trace import trace_steps

SHIPPED = Path(__file__).parents[2] / "datasets" / "zen4-one-core" / "trials.parquet"

Instructions = list[list[Any]]


def steps_of(instructions: Instructions, decisions: list[Any] | None = None) -> list[Step]:
    return trace_steps(json.dumps([instructions, decisions or []]))


def last(instructions: Instructions, decisions: list[Any] | None = None) -> Step:
    return steps_of(instructions, decisions)[-1]


BLOCK: Instructions = [
    ["GetSBlock", [], ["matmul", "main"], ["b0"]],
    ["GetLoops", ["b0"], [], ["l1", "l2", "l3"]],
]
TILED: Instructions = [
    *BLOCK,
    ["SamplePerfectTile", ["l1"], [2, 64], ["v4", "v5"]],
    ["Split", ["l1", "v4", "v5"], [True, False], ["l6", "l7"]],
    ["SamplePerfectTile", ["l2"], [2, 64], ["v8", "v9"]],
    ["Split", ["l2", "v8", "v9"], [True, False], ["l10", "l11"]],
]


def tiles(first: list[int], second: list[int]) -> list[Any]:
    return [[2, first], [4, second]]


SIZES = tiles([16, 4], [2, 32])


def test_a_split_has_the_sizes_that_were_drawn() -> None:
    assert steps_of(TILED, SIZES) == [
        Step("block", (0.0,), ("matmul",)),
        Step("split", (0.0, 0.0, 64.0, 16.0, 4.0)),
        Step("split", (0.0, 2.0, 64.0, 2.0, 32.0)),
    ]


def test_a_size_left_open_follows_from_the_extent() -> None:
    again = [["Split", ["l7", None, 3], [True, False], ["l12", "l13"]]]
    assert last(TILED + again, SIZES) == Step("split", (0.0, 1.0, 4.0, 2.0, 3.0))


def test_what_was_never_drawn_is_unknown() -> None:
    assert last(TILED, [[2, [16, 4]]]) == Step("split", (0.0, 2.0, 0.0, 0.0, 0.0))


def test_loops_are_followed_through_reordering_and_fusing() -> None:
    instructions: Instructions = [
        *TILED,
        ["Reorder", ["l6", "l10", "l3", "l7", "l11"], [], []],
        ["GetLoops", ["b0"], [], ["l20", "l21", "l22", "l23", "l24"]],
        ["Fuse", ["l20", "l21"], [1], ["l25"]],
        ["Parallel", ["l25"], [], []],
        ["Fuse", ["l24"], [1], ["l26"]],
        ["Vectorize", ["l26"], [], []],
        ["Unroll", ["l23"], [], []],
        ["Bind", ["l22"], ["threadIdx.x"], []],
    ]
    assert steps_of(instructions, SIZES)[3:] == [
        Step("reorder", (0.0, 5.0, 0.0, 0.0, 2.0, 4.0, 1.0, 3.0)),
        Step("fuse", (0.0, 0.0, 32.0, 2.0)),
        Step("parallel", (0.0, 0.0, 32.0)),
        Step("vectorize", (0.0, 3.0, 32.0)),
        Step("unroll", (0.0, 2.0, 4.0)),
        Step("bind", (0.0, 1.0, 0.0), ("threadIdx.x",)),
    ]


def test_names_of_variables_say_nothing() -> None:
    text = json.dumps([TILED, SIZES])
    renamed = text.replace('"l', '"l9').replace('"v', '"v9').replace('"b', '"b9')
    assert trace_steps(renamed) == trace_steps(text)


def test_one_size_tells_two_schedules_apart() -> None:
    one = encode(steps_of(TILED, SIZES))
    other = encode(steps_of(TILED, tiles([8, 8], [2, 32])))
    assert one.shape == other.shape
    assert (one != other).sum() == 2


def test_annotations_have_their_values() -> None:
    instructions: Instructions = [
        *TILED,
        ["SampleCategorical", [], [[0, 16, 64, 512], [0.25, 0.25, 0.25, 0.25]], ["v30"]],
        ["Annotate", ["b0", "v30"], ["meta_schedule.unroll_explicit"], []],
        ["Annotate", ["b0", '"SSRSRS"'], ["meta_schedule.tiling_structure"], []],
        ["Annotate", ["l7", [1, 2]], ["pragma"], []],
    ]
    assert steps_of(instructions, [*SIZES, [6, 2]])[-3:] == [
        Step("annotate", (0.0, -1.0, 0.0, 64.0), ("meta_schedule.unroll_explicit",)),
        Step("annotate", (0.0, -1.0, 0.0, 0.0), ("meta_schedule.tiling_structure", "SSRSRS")),
        Step("annotate", (0.0, 1.0, 4.0, 1.0, 2.0), ("pragma",)),
    ]


def test_an_annotation_taken_away_again_leaves_what_it_caused() -> None:
    instructions: Instructions = [
        *TILED,
        ["GetSBlock", [], ["root", "main"], ["b30"]],
        ["Annotate", ["b30", 64], ["meta_schedule.unroll_explicit"], []],
        ["EnterPostproc", [], [], []],
        ["GetSBlock", [], ["root", "main"], ["b31"]],
        ["Unannotate", ["b31"], ["meta_schedule.unroll_explicit"], []],
        ["GetChildBlocks", ["b31"], [], ["b32"]],
        ["GetLoops", ["b32"], [], ["l33", "l34", "l35", "l36", "l37"]],
        ["Annotate", ["l33", 64], ["pragma_auto_unroll_max_step"], []],
        ["Annotate", ["l33", 1], ["pragma_unroll_explicit"], []],
    ]
    found = steps_of(instructions, SIZES)
    assert found[3:] == [Step("auto_unroll", (0.0, 0.0, 16.0, 64.0, 1.0))]


TWO_BLOCKS: Instructions = [
    ["GetSBlock", [], ["pad_temp", "main"], ["b40"]],
    *TILED,
    ["GetSBlock", [], ["T_add1", "main"], ["b41"]],
]
TWO_SIZES = [[3, [16, 4]], [5, [2, 32]]]


def test_a_block_is_moved_under_a_loop_and_shares_those_around_it() -> None:
    instructions: Instructions = [
        *TWO_BLOCKS,
        ["GetConsumers", ["b0"], [], ["b42"]],
        ["ReverseComputeAt", ["b42", "l7"], [1, -1], []],
        ["GetLoops", ["b42"], [], ["l50", "l51", "l52"]],
        ["Vectorize", ["l51"], [], []],
    ]
    assert steps_of(instructions, TWO_SIZES)[-2:] == [
        Step("reverse_compute_at", (2.0, 1.0, 4.0, 1.0)),
        Step("vectorize", (2.0, 1.0, 4.0)),
    ]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (2, Step("compute_at", (0.0, 2.0, 2.0, 1.0))),
        (-1, Step("compute_at", (0.0, -1.0, 0.0, -1.0))),
        (-2, Step("compute_inline", (0.0,), ("pad_temp",))),
    ],
)
def test_a_location_that_was_drawn(drawn: int, expected: Step) -> None:
    instructions: Instructions = [
        *TWO_BLOCKS,
        ["SampleComputeLocation", ["b40"], [], ["l60"]],
        ["ComputeAt", ["b40", "l60"], [1, -1], []],
    ]
    assert last(instructions, [*TWO_SIZES, [8, drawn]]) == expected


def test_a_block_that_was_inlined_is_named_once_and_gone() -> None:
    instructions: Instructions = [
        *TWO_BLOCKS,
        ["ComputeInline", ["b40"], [], []],
        ["ReverseComputeInline", ["b41"], [], []],
        ["GetSBlock", [], ["root", "main"], ["b70"]],
        ["GetChildBlocks", ["b70"], [], ["b71"]],
        ["GetLoops", ["b71"], [], ["l72", "l73", "l74", "l75", "l76"]],
        ["Parallel", ["l72"], [], []],
    ]
    found = steps_of(instructions, TWO_SIZES)
    assert [step.names for step in found if step.kind == "block"] == [("matmul",)]
    assert found[-3:] == [
        Step("compute_inline", (0.0,), ("pad_temp",)),
        Step("reverse_compute_inline", (2.0,), ("T_add",)),
        Step("parallel", (1.0, 0.0, 16.0)),
    ]


def test_caches_are_blocks_too() -> None:
    instructions: Instructions = [
        *TILED,
        ["CacheWrite", ["b0", []], [0, "local"], ["b80"]],
        ["CacheRead", ["b0", []], [1, "shared"], ["b81"]],
        ["ReverseComputeAt", ["b80", "l6"], [1, -1], []],
        ["ComputeAt", ["b81", "l10"], [1, -1], []],
    ]
    assert steps_of(instructions, SIZES)[3:] == [
        Step("cache_write", (0.0, -1.0, 0.0, 0.0), ("local",)),
        Step("cache_read", (0.0, -1.0, 0.0, 1.0), ("shared",)),
        Step("reverse_compute_at", (1.0, 0.0, 16.0, 0.0)),
        Step("compute_at", (2.0, 2.0, 2.0, 0.0)),
    ]


def test_a_reduction_is_factored_and_decomposed() -> None:
    instructions: Instructions = [
        *BLOCK,
        ["SamplePerfectTile", ["l3"], [2, 64], ["v4", "v5"]],
        ["Split", ["l3", "v4", "v5"], [True, False], ["l6", "l7"]],
        ["RFactor", ["l7"], [2], ["b8"]],
        ["GetLoops", ["b8"], [], ["l10", "l11", "l12", "l13"]],
        ["DecomposeReduction", ["b8", "l12"], [], ["b14"]],
        ["GetLoops", ["b0"], [], ["l15", "l16", "l17"]],
        ["Vectorize", ["l17"], [], []],
    ]
    assert steps_of(instructions, [[2, [8, 4]]])[2:] == [
        Step("rfactor", (0.0, 3.0, 4.0, 2.0)),
        Step("decompose_reduction", (1.0, 2.0, 8.0)),
        Step("vectorize", (0.0, 2.0, 4.0)),
    ]


@pytest.mark.parametrize(
    ("instruction", "expected"),
    [
        (["Tensorize", ["l7", '"dot"', True], [], []], ("tensorize", (0.0, 1.0, 4.0, 1.0), "dot")),
        (["StorageAlign", ["b0"], [0, -2, 32, 8], []], ("storage_align", (0.0, 0, -2, 32, 8))),
        (["SetScope", ["b0"], [0, "shared"], []], ("set_scope", (0.0, 0.0), "shared")),
        (["AddUnitLoop", ["b0"], [], ["l90"]], ("add_unit_loop", (0.0,))),
        (["Blockize", ["l7"], [True], ["b90"]], ("blockize", (0.0, 1.0, 4.0, 1.0))),
        (["ReIndex", ["b0"], [0, 1], ["b90"]], ("reindex", (0.0, 0.0, 1.0))),
        (["PadEinsum", ["b0"], [[16, 16]], []], ("pad_einsum", (0.0, 16.0, 16.0))),
        (["DecomposePadding", ["b0", "l6"], [], ["b90"]], ("decompose_padding", (0, 0, 0, 16))),
        (["RollingBuffer", ["b0"], [3], []], ("other", (0.0, 3.0), "RollingBuffer")),
    ],
)
def test_further_primitives_show_their_numbers(instruction: list[Any], expected: Any) -> None:
    kind, numbers, *names = expected
    assert last([*TILED, instruction], SIZES) == Step(kind, tuple(numbers), tuple(names))


def test_long_layouts_differ_though_they_begin_alike() -> None:
    maps = [json.dumps("x" * 400 + end) for end in "ab"]
    one, other = (last([*BLOCK, ["TransformLayout", ["b0", m], [0, 0], []]]) for m in maps)
    assert one.names != other.names
    assert len(one.names[0]) == 64


def test_the_untuned_program_is_a_step_too() -> None:
    assert trace_steps("[[],[]]") == [Step("untuned")]
    assert steps_of([["EnterPostproc", [], [], []]]) == [Step("untuned")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[[]]",
        "[[], 3]",
        '[[["Split"]], []]',
        '[[["Split", [], [], []]], []]',
        '[[["Split", ["l0", 1e400, 2], [], ["l1", "l2"]]], []]',
        '[[["Parallel", 3, [], []]], []]',
        '[[[["Parallel"], ["l0"], [], []]], []]',
        '[[["SamplePerfectTile", ["l0"], [2, 64], ["v1", "v2"]]], [[0, [1]]]]',
        '[[["SampleCategorical", [], [[1], [1]], ["v1"]]], [[0, 7]]]',
        "[" * 5_000,
    ],
)
def test_what_is_no_trace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read as schedule steps"):
        trace_steps(text)


KINDS_OF_TVM = [
    *("GetSBlock", "GetLoops", "Split", "Fuse", "Reorder", "Annotate", "ComputeAt", "RFactor"),
    *("SampleCategorical", "SamplePerfectTile", "SampleComputeLocation", "DecomposeReduction"),
    *("CacheWrite", "ComputeInline", "GetChildBlocks", "Unannotate", "Parallel", "Blockize"),
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["b0", "b1", "l0", "l1", "l2", "v0", "v1", "root", '"text"']),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
LISTS = st.lists(VALUES, max_size=4)
INSTRUCTIONS = st.lists(st.tuples(st.sampled_from(KINDS_OF_TVM), LISTS, LISTS, LISTS), max_size=12)


@settings(deadline=None, max_examples=60)
@given(INSTRUCTIONS, st.lists(st.tuples(st.integers(0, 12), VALUES), max_size=6))
def test_a_wrong_trace_is_refused_or_encoded_never_worse(steps: Any, decisions: Any) -> None:
    try:
        found = trace_steps(json.dumps([steps, decisions]))
    except ValueError:
        return
    encode(found)


def shipped_traces(most: int) -> Iterator[tuple[str, str, str]]:
    """Yield task, target and trace of a dataset's first trials."""
    for batch in read_trials(open_trials(SHIPPED), features=False):
        for item in batch:
            assert not isinstance(item, Refused)
            record = item[0]
            yield record.key.workload, record.key.target, record.trial.trace
            most -= 1
            if most == 0:
                return


def test_real_schedules_of_a_task_stay_different() -> None:
    found = [
        (task, target, encode(trace_steps(trace)).tobytes())
        for task, target, trace in shipped_traces(768)
    ]
    assert len(set(found)) == len(found)


def test_every_loop_of_a_real_schedule_is_found() -> None:
    for _, _, trace in shipped_traces(256):
        for step in trace_steps(trace):
            if step.kind in {"split", "parallel", "vectorize", "auto_unroll"}:
                assert step.numbers[0] >= 0, step
                assert step.numbers[1] >= 0, step
