"""Starts a job's module so that it never outlives the coordinator that asked for it."""

from __future__ import annotations

import os
import runpy
import sys
import threading

_NICENESS = 10
"""Jobs give way to everything a person waits for."""


def _die_with_parent() -> None:
    """The parent holds the other end of stdin: its end, however it came, ends this process."""
    while os.read(0, 4096):
        pass
    os.killpg(os.getpgrp(), 9)


def main() -> None:
    """Run the module named by the first argument with the arguments after it."""
    os.nice(_NICENESS)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    module = sys.argv[1]
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
