"""What kind of operator a function or a node is, so that two compilers' can be compared."""

from __future__ import annotations

VIRTUAL_MACHINE = "virtual machine"
ELEMENTWISE = "elementwise"

_BUILTIN = "vm.builtin."
_WORDS = (
    ("convolution", ("conv",)),
    ("attention", ("attention",)),
    ("matrix product", ("matmul", "gemm", "dense", "einsum")),
    ("softmax", ("softmax",)),
    ("normalisation", ("norm",)),
    ("pooling and reduction", ("pool", "mean", "reduce", "sum", "argm", "topk")),
    (
        "data movement",
        (
            *("transpose", "reshape", "concat", "slice", "split", "gather", "take", "pad", "copy"),
            *("cast", "expand", "squeeze", "tile", "reorder", "flatten", "broadcast", "resize"),
        ),
    ),
)
"""The first that fits: a fused function is what takes most of its time, which comes first here."""


def operator_of(name: str, op: str) -> str:
    """Name the kind of a function of Relax (``op`` is empty) or of an ONNX node."""
    if name.startswith(_BUILTIN) and not op:
        return VIRTUAL_MACHINE
    # A node's own name may be anything, a function's says what was fused.
    text = (op or name).lower()
    return next((kind for kind, words in _WORDS if any(w in text for w in words)), ELEMENTWISE)
