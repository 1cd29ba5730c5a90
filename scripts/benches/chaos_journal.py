"""The witness: what agents were told, written down outside of everything that faults can hit."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Journal:
    """One agent's journal: appended to by each of its incarnations, on the disk at once."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def acknowledged(self, stored: Iterable[str], rejected: Iterable[tuple[str, str]]) -> None:
        """Note an answer to a report before the agent sees it; returns once that is durable."""
        self._note({"stored": list(stored), "rejected": list(rejected)})

    def fault(self, kind: str, call: str) -> None:
        """Note a fault that a call of the agent suffered."""
        self._note({"fault": kind, "call": call})

    def _note(self, entry: dict[str, Any]) -> None:
        # One write of less than a page to a file opened for appending: whole, or the last line.
        os.write(self._fd, (json.dumps(entry) + "\n").encode())
        os.fdatasync(self._fd)


@dataclass
class Witness:
    """What the journals say, all together."""

    acknowledged: set[str] = field(default_factory=set)
    """Trials that the coordinator said it had stored."""
    rejected: dict[str, str] = field(default_factory=dict)
    """Trials that it said it would never store, with the reasons."""
    faults: Counter[str] = field(default_factory=Counter)
    """Faults that calls suffered, by kind."""


def read_journals(paths: Iterable[Path]) -> Witness:
    """Read journals; the end of one whose writer was killed may be half a line, which is ignored.

    Raises:
        ValueError: a line before the last one of a journal is damaged.
    """
    witness = Witness()
    for path in paths:
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines):
            if not line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                if number == len(lines) - 1:
                    continue
                raise
            if "fault" in entry:
                witness.faults[entry["fault"]] += 1
                continue
            witness.acknowledged.update(entry["stored"])
            witness.rejected.update(entry["rejected"])
    return witness
