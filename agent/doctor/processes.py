"""Who was busy meanwhile."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass

import psutil

_COMMAND_CHARACTERS = 60
_IDLE_CORES = 0.02
"""Processes below this are not worth a name."""
_NAMED_AT_MOST = 3
_OURS = re.compile(r"(^|[ /])(tunefleet(-agent)?( |$)|-m (agent|coordinator|tunefleet)[. ])")


@dataclass(frozen=True)
class Busy:
    """A process other than this one that has work."""

    pid: int
    command: str
    cores: float
    ours: bool = False
    """Whether it belongs to TuneFleet."""

    def __str__(self) -> str:
        whose = ", TuneFleet's own" if self.ours else ""
        return f"{self.command} (pid {self.pid}, {self.cores:.1f} cores{whose})"


class ProcessWatch:
    """Compares every process's CPU time now with that of when this object was made."""

    def __init__(self) -> None:
        self._processes = [each for each in psutil.process_iter() if each.pid != os.getpid()]
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                process.cpu_percent(None)

    def busy(self) -> tuple[Busy, ...]:
        """Return the busiest few, the busiest first."""
        found: list[Busy] = []
        for process in self._processes:
            # Those that ended meanwhile have no name any more.
            with contextlib.suppress(psutil.Error):
                cores = process.cpu_percent(None) / 100
                if cores >= _IDLE_CORES:
                    line = " ".join(process.cmdline()) or process.name()
                    short = line[:_COMMAND_CHARACTERS].strip()
                    found.append(Busy(process.pid, short, cores, bool(_OURS.search(line))))
        return tuple(sorted(found, key=lambda each: -each.cores)[:_NAMED_AT_MOST])
