"""A fixed kernel that tells whether the machine is as fast as it usually is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from agent.profile.kernels import FLOAT_BYTES, Kernels, compile_kernels

CANARY_LIMIT = 1.15
"""Readings beyond this multiple of the usual one spoil the samples beside them.

On a virtual machine without load three quarters stay within 1.04; after candidates that leave
caches cold and the clock low they reach 1.11. A neighbour on a core's other thread brings 1.4 if it
computes, 1.2 if it only copies memory, and 2 on a core of ours."""

_MULTIPLY_ADD_ROUNDS = 50_000
"""0.3 million cycles: 0.1 ms at 3 GHz on any vector width."""
_READ_BYTES_PER_THREAD = 2 * 2**20
"""More than a core's own caches hold."""
_READ_PASSES = 2
_TRIES = 3
"""The best of so many counts: a single interruption is no sign of a slow machine, and the first
try after a candidate still pays for the caches and the clock that it left behind."""


@dataclass(frozen=True)
class Canary:
    """The compiled kernels and their data, made before the fork and used after it.

    Arithmetic in registers shows the clock and a neighbour on the same core; reading more than a
    core's caches hold shows a neighbour in the shared ones and in memory.
    """

    kernels: Kernels
    factor: Any
    sums: Any
    values: Any

    def read(self) -> float:
        """Return the seconds the kernels take now, on as many threads as candidates use."""
        threads = self.kernels.threads
        # Brings its data back into the shared cache.
        self.kernels.read(threads, self.values, self.sums, _READ_PASSES)
        tries = [self._try(threads) for _ in range(_TRIES)]
        return min(compute for compute, _ in tries) + min(memory for _, memory in tries)

    def _try(self, threads: int) -> tuple[float, float]:
        began = time.perf_counter()
        self.kernels.multiply_add(threads, self.factor, self.sums, _MULTIPLY_ADD_ROUNDS)
        between = time.perf_counter()
        self.kernels.read(threads, self.values, self.sums, _READ_PASSES)
        return between - began, time.perf_counter() - between


def make_canary(target: str, threads: int) -> Canary:
    """Compile the kernels. Nothing here starts the thread pool: the process may fork afterwards.

    Args:
        target: canonical target of code this machine can run.
        threads: as many as the candidates run with.

    Raises:
        RuntimeError, ValueError: TVM cannot compile for the target.
    """
    import numpy as np  # noqa: PLC0415 (for worker processes only)
    import tvm  # noqa: PLC0415

    kernels = compile_kernels(target, threads)
    for name in ("multiply_add", "read"):
        # LLVM generates code at the first look-up: once here, not in every child.
        kernels.functions.get_function(f"{name}_{threads}")
    total = threads * kernels.width()
    blocks = max(1, threads * _READ_BYTES_PER_THREAD // FLOAT_BYTES // total)
    return Canary(
        kernels,
        tvm.runtime.tensor(np.full(kernels.lanes, 1e-9, np.float32)),
        tvm.runtime.tensor(np.zeros(total, np.float32)),
        tvm.runtime.tensor(np.ones(blocks * total, np.float32)),
    )
