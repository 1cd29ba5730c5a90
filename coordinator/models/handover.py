"""The script beside a compiled module that shows how to run it."""

from __future__ import annotations

from typing import Any

_SCRIPT = '''"""Run the tuned module beside this file.

Needs `pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 numpy`; TVM_NUM_THREADS
sets the number of threads.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

library = tvm.runtime.load_module(str(Path(__file__).with_name("tuned.so")))
main = relax.VirtualMachine(library, tvm.cpu())["main"]
inputs = [
{inputs}
]
tensors = [tvm.runtime.tensor(value) for value in inputs]
outputs = main(*tensors)
for output in [outputs] if isinstance(outputs, tvm.runtime.Tensor) else outputs:
    print("output:", tuple(output.shape), output.dtype)
seconds = []
for _ in range(10):
    began = time.perf_counter()
    main(*tensors)
    seconds.append(time.perf_counter() - began)
print(f"latency: {{statistics.median(seconds) * 1e3:.3f}} ms (median of {{len(seconds)}} runs)")
'''


def run_script(prepared: Any) -> str:
    """Write a Python script that loads ``tuned.so`` and calls it on inputs of ones.

    Args:
        prepared: the network's IRModule; its ``main`` says what the inputs are.
    """
    lines = []
    for parameter in prepared["main"].params:
        shape = ", ".join(str(int(size)) for size in parameter.ty.shape)
        lines.append(f'    np.ones([{shape}], "{parameter.ty.dtype}"),  # {parameter.name}')
    return _SCRIPT.format(inputs="\n".join(lines))
