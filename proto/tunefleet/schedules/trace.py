"""Schedule steps from a MetaSchedule trace, without TVM.

A trace is ``[[instructions], [decisions]]``; an instruction is ``[kind, inputs, attributes,
outputs]``, a decision ``[instruction's number, value]``. Variables are named ``b`` (blocks), ``l``
(loops) and ``v`` (numbers) with a running number. Instructions that only look (``GetLoops``) or
draw (``SamplePerfectTile``) become no step of their own: what they gave stands where it is used. An
annotation that a later instruction takes away again is left out, for it had its effect in between:
what it asked for is among the later steps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from tunefleet.schedules.nest import UNKNOWN_EXTENT, UNKNOWN_PLACE, Block, Loop
from tunefleet.schedules.state import Instruction, TraceState, finite, texts
from tunefleet.schedules.step import Step

MAX_INSTRUCTIONS = 20_000
"""Two hundred times the longest trace in the shipped dataset."""

_UNTUNED = Step("untuned")
_UNROLL = "pragma_auto_unroll_max_step"
_UNROLL_EXPLICITLY = "pragma_unroll_explicit"
_SERIAL = re.compile(r"[0-9]+(?=_|$)")
_INLINED = -2
"""A location that was drawn: not under a loop but at every use (-1: under none)."""


def trace_steps(trace: str) -> list[Step]:
    """Make steps of a trace.

    Args:
        trace: as JSON, as trials store it.

    Returns:
        At least one step: ``untuned`` where the trace is empty or only looks.

    Raises:
        ValueError: it is no trace.
    """
    try:
        instructions, decisions = json.loads(trace)
    except (ValueError, TypeError, RecursionError) as e:
        raise _unreadable(e) from e
    return parsed_trace_steps(instructions, decisions)


def parsed_trace_steps(instructions: Any, decisions: Any) -> list[Step]:
    """Make steps of a trace whose JSON was read already; see :func:`trace_steps`.

    Args:
        instructions: a list of ``[kind, inputs, attributes, outputs]``; stays as it is.
        decisions: a list of ``[instruction's number, value]``; stays as it is.

    Raises:
        ValueError: they are no trace.
    """
    state = TraceState()
    try:
        for instruction in _instructions(instructions, decisions):
            _follow(state, instruction)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as e:
        raise _unreadable(e) from e
    return state.steps() or [_UNTUNED]


def _unreadable(error: Exception) -> ValueError:
    return ValueError(f"the trace cannot be read as schedule steps: {error}")


def _instructions(instructions: Any, decisions: Any) -> Iterator[Instruction]:
    if len(instructions) > MAX_INSTRUCTIONS:
        raise ValueError(f"{len(instructions)} instructions, {MAX_INSTRUCTIONS} are the most")
    taken = {int(number): value for number, value in decisions}
    for number, (kind, inputs, attributes, outputs) in enumerate(instructions):
        if not isinstance(kind, str) or not all(isinstance(name, str) for name in outputs):
            raise ValueError(f"instruction {number} is none")
        yield Instruction(kind, list(inputs), list(attributes), list(outputs), taken.get(number))


def _follow(state: TraceState, step: Instruction) -> None:
    handler = _HANDLERS.get(step.kind)
    if handler is not None:
        handler(state, step)
    else:
        known = _FURTHER.get(step.kind)
        items = [*step.inputs, *step.attributes]
        names = texts(items) if known else [step.kind, *texts(items)]
        state.emit(known or "other", state.values(items), *names)


def _nothing(state: TraceState, step: Instruction) -> None:
    """Follow an instruction that changes no program."""


# Drawing.


def _sample_tile(state: TraceState, step: Instruction) -> None:
    if isinstance(step.decision, list):
        values = [finite(value) for value in step.decision]
        state.numbers.update(zip(step.outputs, values, strict=True))


def _sample_categorical(state: TraceState, step: Instruction) -> None:
    if step.decision is not None:
        state.numbers[step.outputs[0]] = finite(step.attributes[0][int(step.decision)])


def _sample_location(state: TraceState, step: Instruction) -> None:
    name = step.outputs[0]
    place = UNKNOWN_PLACE if step.decision is None else int(step.decision)
    state.numbers[name] = place
    consumer = state.nests.beside(state.block(step.inputs[0]), 1)
    if consumer is not None and 0 <= place < len(consumer.loops):
        state.loops[name] = (consumer, consumer.loops[place])


# Looking.


def _get_block(state: TraceState, step: Instruction) -> None:
    name = str(step.attributes[0])
    block = state.nests.root if name == "root" else state.nests.named(name)
    state.blocks[step.outputs[0]] = block
    if block is not state.nests.root and block not in state.introductions:
        state.introductions[block] = state.emit("block", (block.number,), _plain(name))


def _get_loops(state: TraceState, step: Instruction) -> None:
    block = state.block(step.inputs[0])
    loops = state.nests.look(block, len(step.outputs))
    state.loops.update(
        (name, (block, loop)) for name, loop in zip(step.outputs, loops, strict=True)
    )


def _get_children(state: TraceState, step: Instruction) -> None:
    blocks = state.nests.blocks
    if state.block(step.inputs[0]) is state.nests.root and len(step.outputs) == len(blocks):
        state.blocks.update(zip(step.outputs, blocks, strict=True))


def _get_neighbours(state: TraceState, step: Instruction, *, before: bool) -> None:
    # Nothing in a trace says who reads whom; in the order of a program it is the neighbour.
    block = state.block(step.inputs[0])
    for index, name in enumerate(step.outputs):
        found = state.nests.beside(block, index - len(step.outputs) if before else index + 1)
        if found is not None:
            state.blocks[name] = found


# Loops.


def _split(state: TraceState, step: Instruction) -> None:
    block, loop = state.loop(step.inputs[0])
    number, place, _ = state.where(step.inputs[0])
    made, extent = state.nests.split(loop, [state.number(value) for value in step.inputs[1:]])
    state.emit("split", (number, place, extent, *(one.extent for one in made)))
    state.loops.update((name, (block, one)) for name, one in zip(step.outputs, made, strict=True))


def _fuse(state: TraceState, step: Instruction) -> None:
    block, _ = state.loop(step.inputs[0])
    number, place, _ = state.where(step.inputs[0])
    fused = state.nests.fuse([state.loop(name)[1] for name in step.inputs])
    if len(step.inputs) > 1:
        state.emit("fuse", (number, place, fused.extent, len(step.inputs)))
    state.loops[step.outputs[0]] = (block, fused)


def _reorder(state: TraceState, step: Instruction) -> None:
    block, _ = state.loop(step.inputs[0])
    loops = [state.loop(name)[1] for name in step.inputs]
    places = [UNKNOWN_PLACE if block is None else block.place(loop) for loop in loops]
    number = UNKNOWN_PLACE if block is None else block.number
    state.emit("reorder", (number, len(places), 0.0, *places))
    state.nests.reorder(loops)


def _mark(kind: str, state: TraceState, step: Instruction) -> None:
    state.emit(kind, state.where(step.inputs[0]), *texts([*step.inputs[1:], *step.attributes]))


def _annotate(state: TraceState, step: Instruction) -> None:
    target, value, key = step.inputs[0], step.inputs[1], str(step.attributes[0])
    on, where = _annotated(state, target)
    number = state.number(value)
    if key == "pragma_auto_unroll_max_step":
        state.annotations[on, key] = state.emit("auto_unroll", (*where, number, 0.0))
    elif (
        key == "pragma_unroll_explicit" and (on, "pragma_auto_unroll_max_step") in state.annotations
    ):
        state.replace_number(state.annotations[on, "pragma_auto_unroll_max_step"], 4, number)
    else:
        numbers = (*where, *(state.values([value]) or [0.0]))
        state.annotations[on, key] = state.emit("annotate", numbers, key, *texts([value]))


def _unannotate(state: TraceState, step: Instruction) -> None:
    on, _ = _annotated(state, step.inputs[0])
    state.drop(state.annotations.pop((on, str(step.attributes[0])), None))


# Blocks.


def _move(kind: str, state: TraceState, step: Instruction) -> None:
    block, name = state.block(step.inputs[0]), step.inputs[1]
    if state.numbers.get(name) == _INLINED:
        _inline("compute_inline", state, step)
        return
    target, place, extent = state.where(name)
    owner, loop = state.loop(name)
    # A location that was drawn says itself at which place it is.
    state.emit(kind, (block.number, state.numbers.get(name, place), extent, target))
    if owner is not None:
        state.nests.move(block, owner, loop, behind=kind == "reverse_compute_at")


def _inline(kind: str, state: TraceState, step: Instruction) -> None:
    block = state.block(step.inputs[0])
    state.emit(kind, (block.number,), _plain(block.name))
    state.nests.remove(block)
    # The step itself names the block.
    state.drop(state.introductions.get(block))


def _cache(kind: str, state: TraceState, step: Instruction) -> None:
    block, (index, scope) = state.block(step.inputs[0]), step.attributes
    numbers = (block.number, UNKNOWN_PLACE, UNKNOWN_EXTENT, state.number(index))
    state.emit(kind, numbers, *texts([scope]))
    place = state.nests.place(block) + (kind == "cache_write")
    state.blocks[step.outputs[0]] = state.nests.insert(f"{block.name}_{scope}", place)


def _rfactor(state: TraceState, step: Instruction) -> None:
    state.emit("rfactor", (*state.where(step.inputs[0]), state.number(step.attributes[0])))
    block, loop = state.loop(step.inputs[0])
    if block is not None:
        state.blocks[step.outputs[0]] = state.nests.factor(block, loop)


def _decompose(state: TraceState, step: Instruction) -> None:
    block, (_, loop) = state.block(step.inputs[0]), state.loop(step.inputs[1])
    place = block.place(loop)
    state.emit("decompose_reduction", (block.number, place, loop.extent))
    made = state.nests.insert(f"{block.name}_init", state.nests.place(block))
    made.loops = block.loops[: max(0, place)]
    state.blocks[step.outputs[0]] = made


def _annotated(state: TraceState, name: Any) -> tuple[Block | Loop, tuple[float, float, float]]:
    if str(name).startswith("l"):
        return state.loop(name)[1], state.where(name)
    block = state.block(name)
    return block, (block.number, UNKNOWN_PLACE, UNKNOWN_EXTENT)


def _plain(name: str) -> str:
    """Return a block's name without the numbers by which equal ones of a module differ."""
    return _SERIAL.sub("", name)


_Handler: TypeAlias = Callable[[TraceState, Instruction], None]

_HANDLERS: Mapping[str, _Handler] = {
    "SamplePerfectTile": _sample_tile,
    "SamplePartitionedTile": _sample_tile,
    "SampleCategorical": _sample_categorical,
    "SampleComputeLocation": _sample_location,
    # Its name in TVM up to 0.22.
    "GetBlock": _get_block,
    "GetSBlock": _get_block,
    "GetLoops": _get_loops,
    "GetChildBlocks": _get_children,
    "GetConsumers": partial(_get_neighbours, before=False),
    "GetProducers": partial(_get_neighbours, before=True),
    "GetOutputBlocks": _nothing,
    "EnterPostproc": _nothing,
    "Split": _split,
    "Fuse": _fuse,
    "Reorder": _reorder,
    "Parallel": partial(_mark, "parallel"),
    "Vectorize": partial(_mark, "vectorize"),
    "Unroll": partial(_mark, "unroll"),
    "Bind": partial(_mark, "bind"),
    "Annotate": _annotate,
    "Unannotate": _unannotate,
    "ComputeAt": partial(_move, "compute_at"),
    "ReverseComputeAt": partial(_move, "reverse_compute_at"),
    "ComputeInline": partial(_inline, "compute_inline"),
    "ReverseComputeInline": partial(_inline, "reverse_compute_inline"),
    "CacheRead": partial(_cache, "cache_read"),
    "CacheWrite": partial(_cache, "cache_write"),
    "RFactor": _rfactor,
    "DecomposeReduction": _decompose,
}

_FURTHER: Mapping[str, str] = {
    "AddUnitLoop": "add_unit_loop",
    "Blockize": "blockize",
    "DecomposePadding": "decompose_padding",
    "PadEinsum": "pad_einsum",
    "ReIndex": "reindex",
    "SetScope": "set_scope",
    "StorageAlign": "storage_align",
    "Tensorize": "tensorize",
    "TransformBlockLayout": "transform_block_layout",
    "TransformLayout": "transform_layout",
}
"""Primitives that only accelerators and VNNI need: their numbers as they come."""
