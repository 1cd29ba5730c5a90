"""What the doctor finds: plain values, for a table and for JSON alike."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How much something harms measurements; the worst last."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The machine does not tell. Nothing is guessed."""
    WARN = "warn"
    """Measurements are noisier, or less like those of tomorrow, than they could be."""
    BAD = "bad"
    """Measurements are wrong or impossible."""


@dataclass(frozen=True)
class Change:
    """One setting that ``--fix`` may write."""

    path: str
    """Absolute, as on the machine itself: ``/sys/…``."""
    value: str


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    name: str
    """Stable, for scripts."""
    status: Status
    seen: str
    """What the machine showed, or why it shows nothing."""
    why: str = ""
    """How it harms measurements. Empty where it does not."""
    advice: str = ""
    """What to change, in words."""
    command: str = ""
    """What a person would type to change it, where one line does."""
    changes: tuple[Change, ...] = ()
    """What ``--fix`` would write."""

    @property
    def fixable(self) -> bool:
        """Whether ``--fix`` can change it."""
        return bool(self.changes)


def ok(name: str, seen: str) -> Finding:
    """Make a finding that needs nothing."""
    return Finding(name, Status.OK, seen)


def unknown(name: str, reason: str, advice: str = "") -> Finding:
    """Make a finding of something that the machine does not tell."""
    return Finding(name, Status.UNKNOWN, reason, advice=advice)


def write_command(paths: Sequence[str], value: str) -> str:
    """Return the line that writes one value to kernel files."""
    return f"echo {shlex.quote(value)} | sudo tee {' '.join(map(shlex.quote, paths))}"


def worst(findings: Sequence[Finding]) -> Status:
    """Return the status of a whole examination; what is unknown harms nothing."""
    order = (Status.BAD, Status.WARN)
    statuses = {finding.status for finding in findings}
    return next((status for status in order if status in statuses), Status.OK)
