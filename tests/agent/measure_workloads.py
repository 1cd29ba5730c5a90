"""Workloads for measuring tests: a well-behaved one, and programs that misbehave on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TARGET = '{"kind":"llvm","num-cores":2}'

_SCRIPT = """
# from tvm.script import ir as I
# from tvm.script import tirx as T

@I.ir_module
class Module:
    @T.prim_func(s_tir=True)
    def main(A: T.Buffer((16,), "float32")):
        T.func_attr({{"global_symbol": "main", "tir.noalias": True}})
        {body}
"""


def save_matmul(path: Path, size: int = 64) -> Path:
    """Write a square float32 matrix product as a workload."""
    import tvm
    from tvm import te

    a = te.placeholder((size, size), name="A")
    b = te.placeholder((size, size), name="B")
    k = te.reduce_axis((0, size), name="k")
    c = te.compute((size, size), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    module = tvm.IRModule({"main": te.create_prim_func([a, b, c])})
    path.write_text(tvm.ir.save_json(module))
    return path


def save_large_intermediate(path: Path, elements: int) -> Path:
    """Write a workload that keeps so many float32 in a buffer of its own."""
    import tvm
    from tvm import te

    size = tvm.tirx.IntImm("int64", elements)
    a = te.placeholder((tvm.tirx.IntImm("int64", 16),), name="A")
    b = te.compute((size,), lambda i: a[i % 16] + 1.0, name="B")
    c = te.compute(a.shape, lambda i: b[i * (elements // 16)] + b[elements - 1 - i], name="C")
    module = tvm.IRModule({"main": te.create_prim_func([a, c])})
    path.write_text(tvm.ir.save_json(module))
    return path


def save_large_input(path: Path, elements: int) -> Path:
    """Write a workload with so many float32 as its input."""
    import tvm
    from tvm import te

    a = te.placeholder((elements,), name="A")
    c = te.compute((16,), lambda i: a[i] + 1.0, name="C")
    module = tvm.IRModule({"main": te.create_prim_func([a, c])})
    path.write_text(tvm.ir.save_json(module))
    return path


def save_script(path: Path, body: str) -> Path:
    """Write a workload with this TVMScript statement as its body; ``A`` holds 16 float32."""
    import tvm
    from tvm.script import from_source

    path.write_text(tvm.ir.save_json(from_source(_SCRIPT.format(body=body))))
    return path


def vectorized_trace(workload: Path) -> str:
    """Return a trace for a saved matrix product that has its rows computed by SIMD."""
    schedule, (i, j, k) = _matmul_loops(workload)
    schedule.reorder(i, k, j)
    schedule.vectorize(j)
    return json.dumps(schedule.trace.as_json())


def unrolled_trace(workload: Path) -> str:
    """Return a trace for a saved matrix product that is slow to compile: there is no loop left."""
    schedule, loops = _matmul_loops(workload)
    for loop in loops:
        schedule.unroll(loop)
    return json.dumps(schedule.trace.as_json())


def _matmul_loops(workload: Path) -> tuple[Any, list[Any]]:
    import tvm
    from tvm.s_tir import Schedule

    schedule = Schedule(tvm.ir.load_json(workload.read_text()))
    return schedule, list(schedule.get_loops(schedule.get_sblock("C")))
