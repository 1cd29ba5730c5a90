"""Keeps torch out of processes, or only TVM from importing it.

``tvm`` and ``tvm_ffi`` import torch wherever it is installed (``TVM_FFI_DISABLE_TORCH_C_DLPACK``
turns off only the later part): two thirds of the time that importing TVM takes, and 200 MB, for
tensors of torch's that nobody here hands over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_BLOCKED = frozenset({"torch", "torch_c_dlpack_ext"})


class _TorchBlocker(MetaPathFinder):
    def __init__(self, blocks: Callable[[], bool]) -> None:
        self.blocks = blocks

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname in _BLOCKED and self.blocks():
            raise ModuleNotFoundError(f"{fullname} is of no use here", name=fullname)
        return None


def forbid_torch() -> None:
    """Make every later ``import torch`` in this process fail as if it were not installed.

    Call it before the first import of ``tvm`` or ``tvm_ffi``. Calling it again changes nothing.
    """
    _block(_always)


def import_tvm_without_torch() -> None:
    """Have TVM, whenever it is imported, find no torch; everybody else still does.

    Calling it again changes nothing.
    """
    _block(_for_tvm)


def _block(blocks: Callable[[], bool]) -> None:
    there = (finder for finder in sys.meta_path if isinstance(finder, _TorchBlocker))
    if not any(finder.blocks is blocks for finder in there):
        sys.meta_path.insert(0, _TorchBlocker(blocks))


def _always() -> bool:
    return True


def _for_tvm() -> bool:
    return _being_imported("tvm") or _being_imported("tvm_ffi")


def _being_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))
