"""Small disks that can be filled to the last byte, where this user may mount some."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_BALLAST = ".ballast"


class SmallDisk:
    """A folder on a disk of its own."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        """Mount it.

        Args:
            folder: where; made if missing.
            size_mib: its size.

        Raises:
            OSError: this user may not mount disks; see :func:`own_mounts`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._ballast = folder / _BALLAST
        options = f"size={size_mib}m,mode=700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "chaos", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise OSError(done.stderr.strip())

    def fill(self) -> None:
        """Leave not one byte free."""
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            self._grow(handle)
        finally:
            os.close(handle)

    def empty(self) -> None:
        """Give back what :meth:`fill` took."""
        self._ballast.unlink(missing_ok=True)

    def _grow(self, handle: int) -> None:
        size, step = 0, 64 * 2**20
        block = 4096
        while step >= block:
            try:
                os.posix_fallocate(handle, size, step)
                size += step
            except OSError:
                step //= 2


def own_mounts() -> bool:
    """Give this process mounts of its own, which end with it and its children.

    Returns:
        Whether that is permitted. What is mounted before stays visible.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    with contextlib.suppress(OSError):
        done = subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
        return done.returncode == 0
    return False
