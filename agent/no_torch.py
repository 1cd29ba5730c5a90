"""Keep torch out of an agent's processes.

``tvm_ffi`` imports torch wherever it is installed (its ``TVM_FFI_DISABLE_TORCH_C_DLPACK`` turns
off only the later part). On a device that costs seconds and hundreds of megabytes for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_FORBIDDEN = frozenset({"torch", "torch_c_dlpack_ext"})


class _TorchBlocker(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 (the import system's signature)
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in _FORBIDDEN:
            raise ModuleNotFoundError(f"{fullname} is not used by agents", name=fullname)
        return None


def forbid_torch() -> None:
    """Make every later ``import torch`` in this process fail as if it were not installed.

    Call it before the first import of ``tvm`` or ``tvm_ffi``. Calling it again changes nothing.
    """
    if not any(isinstance(finder, _TorchBlocker) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchBlocker())
