"""The micro-benchmarks' kernels, as TIR that TVM compiles for the device's target.

A kernel repeats its work ``rounds`` times by itself, so that the cost of calling it vanishes. Every
floating-point sum stays in the order written (LLVM may not reassociate it), each feeds the next
round, and the last one is stored: nothing can be dropped or hoisted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FLOAT_BYTES = 4

ACCUMULATORS = 12
"""Independent vector accumulators: two units of latency 5 need 10; with an operand 12 still fit
into the 16 registers of AVX2, or of SSE, where the product needs one more."""

FLAG_STRIDE = 32
"""Floats between the values two threads write, so that no two share a cache line (128 bytes)."""

_MULTIPLY_ADD = """
@T.prim_func(s_tir=True)
def main(
    factor: T.Buffer(({lanes},), "float32"),
    sums: T.Buffer(({total},), "float32"),
    rounds: T.int64,
):
    T.func_attr({{"global_symbol": "{name}", "tirx.noalias": True}})
    for thread in {loop}({threads}):
        with T.sblock("thread"):
            local = T.sblock_alloc_buffer(({width},), "float32", scope="local")
            for i in T.serial({width}):
                local[i] = sums[thread * {width} + i]
            for _ in T.serial(rounds):
                for a in T.unroll({accumulators}):
                    for lane in T.vectorized({lanes}):
                        local[a * {lanes} + lane] = (
                            local[a * {lanes} + lane]
                            + local[a * {lanes} + lane] * factor[lane]
                        )
            for i in T.serial({width}):
                sums[thread * {width} + i] = local[i]
"""

_READ = """
@T.prim_func(s_tir=True)
def main(data: T.handle, sums: T.Buffer(({total},), "float32"), rounds: T.int64):
    T.func_attr({{"global_symbol": "{name}", "tirx.noalias": True}})
    n = T.int64()
    values = T.match_buffer(data, (n,), "float32")
    for thread in {loop}({threads}):
        with T.sblock("thread"):
            local = T.sblock_alloc_buffer(({width},), "float32", scope="local")
            for i in T.serial({width}):
                local[i] = T.float32(0)
            for _ in T.serial(rounds):
                for block in T.serial(n // {total}):
                    for a in T.unroll({accumulators}):
                        for lane in T.vectorized({lanes}):
                            local[a * {lanes} + lane] = (
                                local[a * {lanes} + lane]
                                + values[
                                    (thread * (n // {total}) + block) * {width}
                                    + a * {lanes}
                                    + lane
                                ]
                            )
            for i in T.serial({width}):
                sums[thread * {width} + i] = local[i]
"""

_FILL = """
@T.prim_func(s_tir=True)
def main(data: T.handle, value: T.float32):
    T.func_attr({{"global_symbol": "{name}", "tirx.noalias": True}})
    n = T.int64()
    values = T.match_buffer(data, (n,), "float32")
    for thread in {loop}({threads}):
        for i in T.serial(n // {threads}):
            values[thread * (n // {threads}) + i] = value
"""

_LAUNCH = """
@T.prim_func(s_tir=True)
def main(flags: T.Buffer(({threads} * {stride},), "float32"), rounds: T.int64):
    T.func_attr({{"global_symbol": "{name}", "tirx.noalias": True}})
    for _ in T.serial(rounds):
        for thread in T.parallel({threads}):
            flags[thread * {stride}] = flags[thread * {stride}] + T.float32(1)
"""


@dataclass(frozen=True)
class Kernels:
    """Compiled kernels for one thread and for all of them, and the shapes they are built for."""

    lanes: int
    """float32 values in a vector."""
    threads: int
    functions: Any
    """The JIT-compiled module; kernels by name."""

    def width(self) -> int:
        """Return the float32 values one thread handles a round of its inner loop."""
        return self.lanes * ACCUMULATORS

    def multiply_add(self, threads: int, factor: Any, sums: Any, rounds: int) -> None:
        """Replace each of ``sums`` by ``sum + sum * factor``, ``rounds`` times.

        It is one instruction on ARM too, whose multiply-add overwrites what it adds to; the product
        of two invariants could be hoisted.

        Args:
            threads: 1 or ``self.threads``.
            factor: float32 [lanes].
            sums: float32 [threads * width], read and written.
            rounds: repetitions; each is ``2 * threads * width`` floating-point operations.
        """
        self.functions[_name("multiply_add", threads)](factor, sums, rounds)

    def read(self, threads: int, values: Any, sums: Any, rounds: int) -> None:
        """Add up a buffer, ``rounds`` times, each thread its own contiguous part.

        Args:
            threads: 1 or ``self.threads``.
            values: float32 [n], n a multiple of ``threads * width``.
            sums: float32 [threads * width], the partial sums over all rounds, written.
            rounds: repetitions; each reads ``4 * n`` bytes.
        """
        self.functions[_name("read", threads)](values, sums, rounds)

    def fill(self, threads: int, values: Any, value: float) -> None:
        """Set float32 [n] to one value, each thread the part that it will read later.

        The thread that first touches a page decides on which NUMA node it lies.
        """
        self.functions[_name("fill", threads)](values, value)

    def launch(self, flags: Any, rounds: int) -> None:
        """Start and join a nearly empty parallel loop ``rounds`` times.

        Args:
            flags: float32 [threads * FLAG_STRIDE]; each thread adds 1 to its own a round.
            rounds: repetitions.
        """
        self.functions["launch"](flags, rounds)


def compile_kernels(target: str, threads: int) -> Kernels:
    """Compile all kernels in this process. TVM reads ``TVM_NUM_THREADS`` when it first runs one.

    Args:
        target: a canonical target whose code this machine can run.
        threads: threads of the parallel kernels, equal to ``TVM_NUM_THREADS``.

    Raises:
        RuntimeError, ValueError: TVM does not know the target.
    """
    import tvm  # noqa: PLC0415 (only worker processes may pay for it)

    parsed = tvm.target.Target(target)
    lanes = _lanes(parsed)
    functions = {
        _name(kind, count): _parse(template, _name(kind, count), lanes, count)
        for kind, template in (("multiply_add", _MULTIPLY_ADD), ("read", _READ), ("fill", _FILL))
        for count in sorted({1, threads})
    }
    functions["launch"] = _parse(_LAUNCH, "launch", lanes, threads)
    library = tvm.compile(tvm.IRModule(functions), target=parsed)
    return Kernels(lanes, threads, library.jit())


def _lanes(target: Any) -> int:
    """Return the float32 values in the widest vector register of a target, of fixed length.

    TVM's own ``llvm_get_vector_width`` says 512 bits for every x86 target.
    """
    from tvm.target.codegen import llvm_get_cpu_features  # noqa: PLC0415

    features = llvm_get_cpu_features(target)
    if "avx512f" in features:
        return 16
    return 8 if "avx" in features else 4


def _name(kind: str, threads: int) -> str:
    return f"{kind}_{threads}"


def _parse(template: str, name: str, lanes: int, threads: int) -> Any:
    import tvm  # noqa: PLC0415
    from tvm.script import tirx  # noqa: PLC0415

    width = lanes * ACCUMULATORS
    source = template.format(
        name=name,
        lanes=lanes,
        threads=threads,
        width=width,
        total=threads * width,
        accumulators=ACCUMULATORS,
        stride=FLAG_STRIDE,
        loop="T.parallel" if threads > 1 else "T.serial",
    )
    return tvm.script.from_source(source, extra_vars={"T": tirx})
