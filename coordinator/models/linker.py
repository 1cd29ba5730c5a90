"""Linking compiled modules with the zig that a wheel brings: no system compiler, any target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_OLDEST_GLIBC = "2.28"
"""What TVM's own wheels ask for; a module must not need a newer one than the machine has."""
_LINK_LIMIT_S = 600.0
"""Generous: the first link for a target also builds zig's glibc stubs, about 10 s."""
_ZIG_ARCHITECTURES = {"x86_64", "aarch64", "riscv64"}


class LinkError(RuntimeError):
    """The linker refused; the message is its own."""


class ZigLinker:
    """Links object files to a shared library for one target; fits ``export_library(fcompile=)``."""

    def __init__(self, target: str) -> None:
        """Prepare for a canonical target.

        Raises:
            ValueError: zig has no name for the target's architecture.
        """
        options = json.loads(target)
        triple = str(options.get("mtriple") or f"{os.uname().machine}-unknown-linux-gnu")
        architecture = triple.partition("-")[0]
        if architecture not in _ZIG_ARCHITECTURES:
            raise ValueError(f"modules for the architecture {architecture!r} cannot be linked")
        self.triple = f"{architecture}-linux-gnu.{_OLDEST_GLIBC}"

    def __call__(self, output: str, objects: Sequence[str]) -> None:
        """Link.

        Raises:
            LinkError: with what the linker said.
        """
        command = [sys.executable, "-m", "ziglang", "cc", "-target", self.triple]
        command += ["-shared", "-fPIC", "-o", output, *objects, "-lm"]
        cache = str(_cache_dir())
        environment = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache, **os.environ}
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_LINK_LIMIT_S,
            check=False,
        )
        if done.returncode != 0:
            raise LinkError(f"zig cc failed for {self.triple}: {done.stderr.strip()[-2000:]}")


def _cache_dir() -> Path:
    """Return a folder that is writable also where the home is not, private to this user."""
    folder = Path(tempfile.gettempdir()) / f"tunefleet-zig-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise LinkError(f"{folder} belongs to another user")
    return folder
