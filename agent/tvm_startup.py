"""Import TVM with what the search and the measurements need, in seconds instead of a minute."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


def import_tvm() -> Any:
    """Import ``tvm`` and register the tensor intrinsics that traces refer to by name.

    Returns:
        The module ``tvm``. Set variables such as ``TVM_NUM_THREADS`` before: it reads them once.
    """
    import tvm  # noqa: PLC0415 (only worker processes may pay for it)

    with _memoised_getmodule():
        import tvm.s_tir.tensor_intrin  # noqa: PLC0415
    return tvm


@contextmanager
def _memoised_getmodule() -> Iterator[None]:
    """Make ``inspect.stack`` cheap for a while.

    Registering the intrinsics takes 496 stacks, and for every frame of each ``inspect.getmodule``
    scans all of ``sys.modules``: 25 to 60 CPU-seconds, against 3 with this.
    """
    original = inspect.getmodule
    by_file: dict[str, ModuleType | None] = {}

    def getmodule(thing: Any, _filename: str | None = None) -> ModuleType | None:
        code = getattr(thing, "f_code", None)
        if code is None:
            return original(thing, _filename)
        if code.co_filename not in by_file:
            by_file[code.co_filename] = original(thing, _filename)
        return by_file[code.co_filename]

    inspect.getmodule = getmodule  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getmodule = original
