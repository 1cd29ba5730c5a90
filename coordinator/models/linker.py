"""Linking compiled modules with the LLD inside zig's wheel: no system compiler, any target.

``zig cc`` would do as well, but it first compiles its own run-time library for each target, 16
CPU-seconds for something that modules of TVM do not use, and needs a cache to keep it in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_LINK_LIMIT_S = 300.0
"""Generous: vgg19's 570 MB take seconds on a slow disk."""
_EMULATIONS = {
    "x86_64": "elf_x86_64",
    "aarch64": "aarch64linux",
    "riscv64": "elf64lriscv",
}
_NEEDED = ("libm.so.6", "libc.so.6")
"""Where modules find ``expf``, ``memset`` and the like at run time, in any version of glibc."""


class LinkError(RuntimeError):
    """The linker refused; the message is its own."""


class Linker:
    """Links object files to a shared library for one target; fits ``export_library(fcompile=)``."""

    def __init__(self, target: str) -> None:
        """Prepare for a canonical target.

        Raises:
            ValueError: there is no linker for the target's architecture.
        """
        triple = json.loads(target).get("mtriple") or os.uname().machine
        architecture = str(triple).partition("-")[0]
        if architecture not in _EMULATIONS:
            raise ValueError(f"modules for the architecture {architecture!r} cannot be linked")
        self._emulation = _EMULATIONS[architecture]

    def __call__(self, output: str, objects: Sequence[str]) -> None:
        """Link.

        Raises:
            LinkError: with what the linker said.
        """
        with tempfile.TemporaryDirectory(prefix="tunefleet-link-") as folder:
            needed = [self._stub(Path(folder), name) for name in _NEEDED]
            self._link(["--no-as-needed", *objects, *needed], output)

    def _stub(self, folder: Path, name: str) -> str:
        """Make an empty library: it is enough to write the dependency down."""
        empty = folder / "empty"
        empty.touch()
        stub = str(folder / name)
        self._link(["-soname", name, "--format=binary", str(empty)], stub)
        return stub

    def _link(self, arguments: Sequence[str], output: str) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ziglang", "ld.lld"),
                *("-m", self._emulation, "-shared", *arguments, "-o", output),
            ],
            capture_output=True,
            text=True,
            timeout=_LINK_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise LinkError(f"{Path(output).name} was not linked: {done.stderr.strip()[-2000:]}")
