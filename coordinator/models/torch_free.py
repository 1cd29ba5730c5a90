"""Lets jobs import TVM without torch, which few of them need.

``tvm`` and ``tvm_ffi`` import torch wherever it is installed: two thirds of the time that importing
TVM takes, and 200 MB, for tensors of torch's that nobody here hands over.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _NotForTvm(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        asked = fullname in {"torch", "torch_c_dlpack_ext"}
        if asked and (_being_imported("tvm") or _being_imported("tvm_ffi")):
            raise ModuleNotFoundError(f"{fullname} is of no use to TVM here", name=fullname)
        return None


def _being_imported(name: str) -> bool:
    module = sys.modules.get(name)
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def import_tvm_without_torch() -> None:
    """Have TVM, whenever it is imported, find no torch; everybody else still does."""
    if not any(isinstance(finder, _NotForTvm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NotForTvm())
