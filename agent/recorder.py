"""Which candidate ran when the device went down: kept on the disk, read after the restart.

A schedule can take a board down with it: it reboots, freezes until somebody pulls the plug, or the
agent is killed for want of memory. Whoever comes back must not measure that candidate again at
once, else the campaign ends there. So each candidate's name is on the disk before it runs. What is
found at the start of an agent becomes a trial with the verdict LOST, its lease goes on without the
candidate, and after a second time the candidate is not measured on this device any more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from tunefleet.trials import Trial, Verdict, trial_id

TIMES_FORGIVEN = 1
"""A device may go down by chance while some candidate runs, but hardly twice with the same."""

_NAME_BYTES = 64
"""One write within one sector is on the disk wholly or not at all."""
_KEPT = 1_000
"""Candidates remembered, the latest."""

_log = structlog.get_logger(__name__)


class RunningMark:
    """The name of the candidate that runs, on the disk before it does. Used by the worker."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(_mark_file(folder), os.O_WRONLY | os.O_CREAT, 0o600)
        # A worker that was ended is no device that went down.
        self.clear()

    def set(self, candidate: str) -> None:
        """Note that a candidate is about to run; returns once that is on the disk."""
        os.pwrite(self._fd, candidate.encode().ljust(_NAME_BYTES), 0)
        os.fdatasync(self._fd)

    def clear(self) -> None:
        """Note that it has ended; the next one's mark takes this to the disk, too."""
        os.pwrite(self._fd, b" " * _NAME_BYTES, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()
        os.close(self._fd)


@dataclass(frozen=True)
class Lost:
    """What ran when the device went down."""

    trial: Trial
    fencing_token: int


class Recorder:
    """What is being measured, and what took the device down before. Used by the agent."""

    def __init__(self, folder: Path) -> None:
        """Open it.

        Args:
            folder: that the measuring worker keeps its state in, too.
        """
        self._folder = folder
        self._taken_down = _read_taken_down(folder)

    def begin(self, lease_id: str, fencing_token: int, traces: Mapping[str, str]) -> None:
        """Note what is about to be measured, by the candidates' names.

        Raises:
            OSError: the disk is full or failed.
        """
        about = {"lease_id": lease_id, "fencing_token": fencing_token, "traces": dict(traces)}
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(_batch_file(self._folder), json.dumps(about))

    def times(self, candidate: str) -> int:
        """Return how often the device went down while this candidate ran."""
        return len(self._taken_down.get(candidate, ()))

    def knows(self, candidate: str, lease_id: str) -> bool:
        """Whether it did so under this lease, and was reported."""
        return lease_id in self._taken_down.get(candidate, ())

    def recover(self) -> Lost | None:
        """Return what ran when the device, or the agent, went down; :meth:`forget` it afterwards.

        Only at the start of an agent, before anything is measured.
        """
        try:
            candidate = _mark_file(self._folder).read_bytes().decode().strip()
            about = json.loads(_batch_file(self._folder).read_text())
            if not candidate:
                return None
            lease_id, token = str(about["lease_id"]), int(about["fencing_token"])
            trace = str(about["traces"][candidate])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        known = [*self._taken_down.pop(candidate, ()), lease_id]
        self._taken_down[candidate] = list(dict.fromkeys(known))
        trial = lost_trial(lease_id, candidate, trace, "the device went down while it ran")
        return Lost(trial, token)

    def forget(self) -> None:
        """Keep who took the device down, and take the mark away: it is reported."""
        _write(_history_file(self._folder), json.dumps(dict(_latest(self._taken_down))))
        _mark_file(self._folder).unlink(missing_ok=True)


def lost_trial(lease_id: str, candidate: str, trace: str, error: str) -> Trial:
    """Make the trial of a candidate whose outcome nobody saw."""
    return Trial(
        trial_id=trial_id(lease_id, candidate, attempt=0),
        lease_id=lease_id,
        candidate=candidate,
        trace=trace,
        verdict=Verdict.LOST,
        samples_s=(),
        error=error,
    )


def _read_taken_down(folder: Path) -> dict[str, Sequence[str]]:
    try:
        found = json.loads(_history_file(folder).read_text())
        return {str(name): [str(lease) for lease in leases] for name, leases in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as e:
        _log.warning("history of candidates that took the device down is lost", why=str(e))
        return {}


def _latest(taken_down: Mapping[str, Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return list(taken_down.items())[-_KEPT:]


def _mark_file(folder: Path) -> Path:
    return folder / "running"


def _batch_file(folder: Path) -> Path:
    return folder / "measuring.json"


def _history_file(folder: Path) -> Path:
    return folder / "took-device-down.json"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
