"""Schedule steps: a program as the decisions that made it.

A schedule is a sequence of steps, whichever system took them: MetaSchedule's traces
(:mod:`tunefleet.schedules.trace`) and the transform steps of TVM's former auto-scheduler, as
TenSet's records hold them, become the same kinds with the same meaning of their numbers, so that
one model can learn from both.

Most kinds number their first values alike: the block or stage they work on, the position of the
loop in its nest, and that loop's extent; then what is their own.

======================== =============================================================
kind                     numbers (names)
======================== =============================================================
workload                 shape arguments, eight a step (the operator; further texts)
block                    block (its name)
split, follow_split,     block, loop, extent, factors from the outermost to the innermost
follow_fused_split
fuse                     block, first loop, extent of the fused loop, how many
reorder                  block, how many, 0, former positions in their new order
parallel, vectorize,     block, loop, extent
unroll
bind, tensorize          block, loop, extent (thread axis or intrinsic)
auto_unroll              block, loop, extent, largest number of steps unrolled, explicitly
annotate                 block, loop, extent, value (key, value where that is a text)
storage_align            block, loop, extent, factor, offset
compute_at,              block, loop it goes under, that loop's extent, block of that loop
reverse_compute_at
compute_inline,          block (its name)
reverse_compute_inline
compute_root             block
cache_read, cache_write  block, -1, 0, buffer or blocks that read (memory scope)
rfactor                  block, loop, extent, axis of the factor
decompose_reduction      block, loop, extent
untuned                  nothing: the program as it was given
other                    the numbers found (the primitive; texts found)
======================== =============================================================

The primitives that MetaSchedule needs on accelerators have a kind of their own too, with the
numbers found. An extent that is not known is 0, a loop or block -1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step of a schedule."""

    kind: str
    numbers: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
