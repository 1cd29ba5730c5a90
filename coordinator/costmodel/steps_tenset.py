"""Schedule steps from the transform steps of TVM's former auto-scheduler (Ansor), without TVM.

TenSet's records hold a program as a list of transform steps, each a list that begins with a code:
``["SP", stage, loop, extent, [lengths], inner_to_outer]`` and so on, as TVM 0.8 writes them
(``src/auto_scheduler/transform_step.cc``). Stages and loops are named by their place at that
moment. A step that follows an earlier split is given the sizes that it takes from there, so that
it means something by itself.

A record says nothing of the operator but a hash of its graph and the arguments of its shape; they
come first, as steps of the kind ``workload``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from coordinator.costmodel.steps import NUMBER_SLOTS
from tunefleet.schedules.nest import UNKNOWN_EXTENT, UNKNOWN_PLACE, product
from tunefleet.schedules.step import Step

MAX_STEPS_READ = 1_000
"""Ten times the longest list that TLP found in TenSet."""

_MAX_STAGES_AND_LOOPS = 1_000
_MAX_ITEMS = 256
_MAX_TEXT = 200
_LARGEST = 2**53

# What follows the code: i a whole number, l a list of them, s a text; and which items name a stage
# or a loop.
_SHAPES: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "AN": ("iii", (1, 2)),
    "FU": ("il", (1,)),
    "PR": ("iis", (1, 2)),
    "RE": ("il", (1,)),
    "SP": ("iiili", (1, 2)),
    "FSP": ("iiii", (1, 2)),
    "FFSP": ("iilii", (1, 2)),
    "SA": ("iiii", (1, 2)),
    "CA": ("iii", (1, 2, 3)),
    "CI": ("i", (1,)),
    "CR": ("i", (1,)),
    "CHR": ("isl", (1,)),
    "CHW": ("is", (1,)),
    "RF": ("iii", (1, 2)),
}
_LISTS_OF_LOOPS = frozenset({"FU", "RE"})
_TYPES: Mapping[str, list[type]] = {
    code: [{"i": int, "l": list, "s": str}[letter] for letter in f"s{letters}"]
    for code, (letters, _) in _SHAPES.items()
}

_UNROLL = "auto_unroll_max_step$"

# tvm::auto_scheduler::IteratorAnnotation
_ANNOTATIONS: Mapping[int, tuple[str, tuple[str, ...]]] = {
    1: ("unroll", ()),
    2: ("vectorize", ()),
    3: ("parallel", ()),
    4: ("bind", ("vthread",)),
    5: ("bind", ("blockIdx.x",)),
    6: ("bind", ("threadIdx.x",)),
    7: ("bind", ("blockIdx.y",)),
    8: ("bind", ("threadIdx.y",)),
    9: ("bind", ("blockIdx.z",)),
    10: ("bind", ("threadIdx.z",)),
    11: ("tensorize", ()),
}


def check_transform(transform: Any) -> list[list[Any]]:
    """Return transform steps if they look like such.

    Args:
        transform: parsed JSON. Codes that TVM 0.8 did not have are let through.

    Raises:
        ValueError: it is no list of steps, or one has not what its code needs.
    """
    if not isinstance(transform, list) or len(transform) > MAX_STEPS_READ:
        raise ValueError(f"the transform steps are no list, or more than {MAX_STEPS_READ}")
    for step in transform:
        if not (isinstance(step, list) and step and isinstance(step[0], str)):
            raise ValueError(f"the transform step {step!r:.60} does not begin with a code")
        _check_step(step)
    return transform


def _check_step(step: list[Any]) -> None:
    # This runs for every step of every line, and most of reading goes into it.
    code = step[0]
    types = list(map(type, step))
    if code in _TYPES and types != _TYPES[code]:
        raise ValueError(f"the transform step {step!r:.60} has not the items {_SHAPES[code][0]!r}")
    for item, kind in zip(step, types, strict=True):
        if kind is int:
            if abs(item) > _LARGEST:
                raise ValueError(f"a transform step has the number {item!r:.40}")
        elif kind is list:
            _check_list(item)
        elif kind is not str:
            raise ValueError(f"a transform step has {item!r:.40}, which is no whole number")
    if code in _SHAPES:
        places = [step[i] for i in _SHAPES[code][1]]
        if code in _LISTS_OF_LOOPS:
            places += step[2]
        if min(places) < 0 or max(places) >= _MAX_STAGES_AND_LOOPS:
            raise ValueError(f"the transform step {step!r:.60} names a stage or loop out of range")


def _check_list(items: list[Any]) -> None:
    if not items:
        return
    if len(items) > _MAX_ITEMS or set(map(type, items)) != {int}:
        raise ValueError("a transform step has a list that is long or not of whole numbers")
    if max(items) > _LARGEST or min(items) < -_LARGEST:
        raise ValueError("a transform step has a number in a list that is too large")


def tenset_steps(workload_key: str, transform: Sequence[Sequence[Any]]) -> list[Step]:
    """Make steps of a TenSet program.

    Args:
        workload_key: JSON, as records hold it: ``["hash of the graph", shape arguments …]``.
        transform: what :func:`check_transform` returned.

    Returns:
        Those of the workload first; ``untuned`` after them where there is no transform step.

    Raises:
        ValueError: the workload key is no such list.
    """
    reader = _StageReader(transform)
    return [*workload_steps(workload_key), *(reader.steps() or [Step("untuned")])]


def workload_steps(workload_key: str) -> list[Step]:
    """Make steps of a workload key: its shape arguments, as many a step as a step can show.

    Raises:
        ValueError: it is no list that begins with a name.
    """
    try:
        key = json.loads(workload_key)
        items = list(_flat(key))[1:] if isinstance(key, list) else []
    except (ValueError, RecursionError) as e:
        raise ValueError(f"the workload key cannot be read: {e}") from e
    if not (isinstance(key, list) and key and isinstance(key[0], str)):
        raise ValueError(f"the workload key {workload_key[:60]!r} does not begin with a name")
    if len(items) > _MAX_ITEMS:
        raise ValueError(f"the workload key has {len(items)} arguments, {_MAX_ITEMS} are the most")
    numbers = [_argument(item) for item in items if not isinstance(item, str)]
    texts = [item[:_MAX_TEXT] for item in items if isinstance(item, str)]
    first = Step("workload", tuple(numbers[:NUMBER_SLOTS]), (key[0][:_MAX_TEXT], *texts))
    return [first] + [
        Step("workload", tuple(numbers[i : i + NUMBER_SLOTS]))
        for i in range(NUMBER_SLOTS, len(numbers), NUMBER_SLOTS)
    ]


class _StageReader:
    """Follows the loops of the stages through the transform steps."""

    def __init__(self, transform: Sequence[Sequence[Any]]) -> None:
        self.transform = transform
        self._stages: list[list[float]] = []

    def steps(self) -> list[Step]:
        return [_HANDLERS.get(step[0], _other)(self, step) for step in self.transform]

    def loops(self, stage: int) -> list[float]:
        """Return the extents of a stage's loops, as far as they were mentioned."""
        while len(self._stages) <= stage:
            self._stages.append([])
        return self._stages[stage]

    def extent(self, stage: int, loop: int) -> float:
        """Return the extent of a loop; the unknown is 0."""
        loops = self.loops(stage)
        return loops[loop] if loop < len(loops) else UNKNOWN_EXTENT

    def replace(self, stage: int, loop: int, count: int, extents: Sequence[float]) -> None:
        """Put loops of these extents in the place of so many."""
        loops = self.loops(stage)
        loops.extend([UNKNOWN_EXTENT] * (loop + count - len(loops)))
        loops[loop : loop + count] = extents

    def insert(self, stage: int) -> None:
        """Make room for a stage of which nothing is known."""
        self.loops(stage)
        self._stages.insert(stage, [])

    def lengths(self, step: Any) -> list[int]:
        """Return the lengths of an earlier split, none where it is no split."""
        if not 0 <= step < len(self.transform) or self.transform[step][0] != "SP":
            return []
        return list(self.transform[step][4])


def _split_into(
    reader: _StageReader, step: Sequence[Any], extent: float, lengths: list[float], inward: int
) -> Step:
    """Split a loop; ``inward``: the lengths are the inner loops', else the outer ones'."""
    given = product(lengths)
    rest = float(math.ceil(extent / given)) if extent and given else UNKNOWN_EXTENT
    factors = [rest, *lengths] if inward else [*lengths, rest]
    kind = {"SP": "split", "FSP": "follow_split", "FFSP": "follow_fused_split"}[step[0]]
    reader.replace(step[1], step[2], 1, factors)
    return Step(kind, (step[1], step[2], extent, *factors))


def _split(reader: _StageReader, step: Sequence[Any]) -> Step:
    return _split_into(reader, step, float(step[3]), [float(n) for n in step[4]], step[5])


def _follow_split(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, _, _, source, count = step
    lengths = [float(n) for n in reader.lengths(source)]
    # The last of its loops takes all that the followed split has further in.
    outer = max(0, count - 1)
    followed = [*lengths[:outer], product(lengths[outer:])] if lengths else []
    extent = float(reader.transform[source][3]) if lengths else UNKNOWN_EXTENT
    return _split_into(reader, step, extent, followed, 1)


def _follow_fused_split(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, loop, sources, level, inward = step
    found = [reader.lengths(source) for source in sources]
    complete = bool(found) and all(0 <= level < len(lengths) for lengths in found)
    length = product(one[level] for one in found) if complete else UNKNOWN_EXTENT
    return _split_into(reader, step, reader.extent(stage, loop), [length], inward)


def _fuse(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, fused = step
    first = min(fused, default=0)
    extent = product(reader.extent(stage, loop) for loop in fused)
    if fused:
        reader.replace(stage, first, len(fused), [extent])
    return Step("fuse", (stage, first, extent, len(fused)))


def _reorder(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, order = step
    extents = [reader.extent(stage, loop) for loop in order]
    reader.replace(stage, 0, len(order), extents)
    return Step("reorder", (stage, len(order), 0.0, *order))


def _annotate(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, loop, annotation = step
    where = (stage, loop, reader.extent(stage, loop))
    if annotation in _ANNOTATIONS:
        kind, names = _ANNOTATIONS[annotation]
        return Step(kind, where, names)
    return Step("annotate", (*where, annotation))


def _pragma(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, loop, pragma = step
    where = (stage, loop, reader.extent(stage, loop))
    limit = pragma.removeprefix(_UNROLL)
    if limit != pragma and limit.isdecimal() and len(limit) < 10:
        # TVM adds unroll_explicit to each of these.
        return Step("auto_unroll", (*where, int(limit), 1.0))
    return Step("annotate", (*where, 0.0), (pragma[:_MAX_TEXT],))


def _storage_align(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, loop, factor, offset = step
    return Step("storage_align", (stage, loop, reader.extent(stage, loop), factor, offset))


def _compute_at(reader: _StageReader, step: Sequence[Any]) -> Step:
    # The stage's own extents stay as its splits gave them: what is tiled inside does not shrink.
    _, stage, target, loop = step
    return Step("compute_at", (stage, loop, reader.extent(target, loop), target))


def _inline(_: _StageReader, step: Sequence[Any]) -> Step:
    return Step("compute_inline", (step[1],))


def _compute_root(_: _StageReader, step: Sequence[Any]) -> Step:
    return Step("compute_root", (step[1],))


def _cache_read(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, scope, readers = step
    reader.insert(stage + 1)
    numbers = (stage, UNKNOWN_PLACE, UNKNOWN_EXTENT, *readers)
    return Step("cache_read", numbers, (scope[:_MAX_TEXT],))


def _cache_write(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, scope = step
    reader.insert(stage)
    return Step("cache_write", (stage, UNKNOWN_PLACE, UNKNOWN_EXTENT), (scope[:_MAX_TEXT],))


def _rfactor(reader: _StageReader, step: Sequence[Any]) -> Step:
    _, stage, loop, factor = step
    found = Step("rfactor", (stage, loop, reader.extent(stage, loop), factor))
    # Both stages reduce over other loops now.
    reader.loops(stage).clear()
    reader.insert(stage)
    return found


def _other(_: _StageReader, step: Sequence[Any]) -> Step:
    items = list(_flat(step[1:]))
    texts = [item[:_MAX_TEXT] for item in items if isinstance(item, str)]
    numbers = [float(item) for item in items if not isinstance(item, str)]
    return Step("other", tuple(numbers), (step[0][:_MAX_TEXT], *texts))


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST:
        raise ValueError(f"{value!r:.40} should be a whole number below 2**53")
    return value


def _argument(value: Any) -> float:
    # Workloads of other people's are functions with arguments of their own: flags, or none at all.
    if value is None or isinstance(value, bool):
        return float(bool(value))
    if isinstance(value, float) and math.isfinite(value):
        return value
    return float(_whole(value))


def _flat(items: Sequence[Any]) -> Iterator[Any]:
    for item in items:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


_Handler: TypeAlias = Callable[[_StageReader, Sequence[Any]], Step]

_HANDLERS: Mapping[str, _Handler] = {
    "AN": _annotate,
    "FU": _fuse,
    "PR": _pragma,
    "RE": _reorder,
    "SP": _split,
    "FSP": _follow_split,
    "FFSP": _follow_fused_split,
    "SA": _storage_align,
    "CA": _compute_at,
    "CI": _inline,
    "CR": _compute_root,
    "CHR": _cache_read,
    "CHW": _cache_write,
    "RF": _rfactor,
}
