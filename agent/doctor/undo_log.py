"""``doctor-undo.json``: what the settings were before ``--fix``, safe on disk before any changes.

It lies in the agent's folder and belongs to that folder's owner, also when root writes it. Root
may read it too, and then writes what it says: nothing is accepted from it but the settings that
``--fix`` touches.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from agent.doctor.machine import nearest
from tunefleet.errors import Reason, TuneFleetError

FILE_NAME = "doctor-undo.json"
_LOCK_NAME = "doctor.lock"
_FORMAT = 1

_POLICY = r"/sys/devices/system/cpu/(?:cpufreq/policy\d+|cpu\d+/cpufreq)"
SETTINGS = re.compile(
    rf"{_POLICY}/(?:scaling_governor|boost)"
    r"|/sys/devices/system/cpu/(?:intel_pstate/no_turbo|cpufreq/boost)"
    r"|/proc/sys/kernel/numa_balancing"
)
"""What ``--fix`` may set."""
CONSEQUENCES = ("energy_performance_preference", "scaling_max_freq", "scaling_min_freq")
"""What the kernel itself changes in a policy when these are set."""
_CONSEQUENCE_PATHS = re.compile(rf"{_POLICY}/(?:{'|'.join(CONSEQUENCES)})")
_VALUE = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class Entry:
    """One setting."""

    path: str
    before: str
    after: str | None
    """What ``--fix`` left there. ``None`` for consequences of a fix that was interrupted."""


@dataclass(frozen=True)
class UndoLog:
    """What is to be restored."""

    boot_id: str | None
    """The kernel's name for this start of the machine; none of the settings outlives it."""
    settings: tuple[Entry, ...] = ()
    """In the order they were set."""
    consequences: tuple[Entry, ...] = ()

    def restricted_to(self, paths: Collection[str]) -> UndoLog:
        """Keep the entries of some settings only."""
        return replace(
            self,
            settings=tuple(each for each in self.settings if each.path in paths),
            consequences=tuple(each for each in self.consequences if each.path in paths),
        )

    def with_new(self, settings: tuple[Entry, ...], consequences: tuple[Entry, ...]) -> UndoLog:
        """Add what is about to change; of what is known already the first old value stays."""
        return replace(
            self,
            settings=_merge(self.settings, settings),
            consequences=_merge(self.consequences, consequences),
        )


class UndoFile:
    """The log on disk. Use it within :meth:`locked`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.path = home / FILE_NAME

    def exists(self) -> bool:
        """Tell whether there is something to undo, as far as can be seen."""
        return nearest(self.path) == self.path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other doctors of this folder out; an agent may go on working in it.

        Raises:
            TuneFleetError: HOME_IN_USE, INVALID_ARGUMENT if the folder cannot be written to.
        """
        try:
            _make_folder(self._home)
            lock = self._home / _LOCK_NAME
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as e:
            raise self._unusable(e) from e
        try:
            _give_to_owner(fd, self._home)
            _lock(fd, self._home)
            yield
        finally:
            os.close(fd)

    def read(self) -> UndoLog | None:
        """Return what was noted, ``None`` if nothing was.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the file cannot be read, or is no such log.
        """
        try:
            return _parse(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._unusable(e) from e
        except (ValueError, KeyError, TypeError) as e:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"{self.path} is not what a doctor wrote: {e}",
                hint="Restore the settings by hand, or by a restart of the machine; then delete "
                "the file.",
            ) from e

    def write(self, log: UndoLog) -> None:
        """Replace the file; on return it outlives a crash of the machine.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, it cannot be written; the old one is still there.
        """
        text = json.dumps({"format": _FORMAT, **asdict(log)}, indent=2)
        try:
            fd, temporary = tempfile.mkstemp(dir=self._home, prefix=f".{FILE_NAME}-")
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    _give_to_owner(fd, self._home)
                    file.write(text + "\n")
                    file.flush()
                    os.fsync(fd)
                Path(temporary).replace(self.path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            self._sync_folder()
        except OSError as e:
            raise self._unusable(e) from e

    def delete(self) -> None:
        """Forget everything.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, the file cannot be deleted.
        """
        try:
            self.path.unlink(missing_ok=True)
            self._sync_folder()
        except OSError as e:
            raise self._unusable(e) from e

    def _sync_folder(self) -> None:
        folder = os.open(self._home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unusable(self, error: OSError) -> TuneFleetError:
        return TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"old settings cannot be kept in {self._home}: {error.strerror}",
            hint="Choose a folder that may be written to with --home.",
        )


def make_entry(path: str, before: str | None, after: str | None) -> Entry | None:
    """Return an entry, or ``None`` if it is none that :meth:`UndoFile.read` would accept."""
    if before is None:
        return None
    entry = Entry(path, before, after)
    return entry if _acceptable(entry, SETTINGS) or _acceptable(entry, _CONSEQUENCE_PATHS) else None


def _parse(raw: Any) -> UndoLog:
    if raw["format"] != _FORMAT:
        raise ValueError(f"its format is {raw['format']!r}, not {_FORMAT}")
    boot_id = raw["boot_id"]
    return UndoLog(
        None if boot_id is None else str(boot_id),
        tuple(_entry(each, SETTINGS) for each in raw["settings"]),
        tuple(_entry(each, _CONSEQUENCE_PATHS) for each in raw["consequences"]),
    )


def _entry(raw: Any, allowed: re.Pattern[str]) -> Entry:
    after = raw["after"]
    entry = Entry(str(raw["path"]), str(raw["before"]), None if after is None else str(after))
    if not _acceptable(entry, allowed):
        raise ValueError(f"{entry.path!r} is no setting of a doctor's")
    return entry


def _acceptable(entry: Entry, allowed: re.Pattern[str]) -> bool:
    values = (entry.before, entry.before if entry.after is None else entry.after)
    return allowed.fullmatch(entry.path) is not None and all(map(_VALUE.fullmatch, values))


def _lock(fd: int, home: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        raise TuneFleetError(
            Reason.HOME_IN_USE,
            f"another doctor is at work in {home}",
            hint="Wait until it has ended.",
        ) from e


def _merge(known: tuple[Entry, ...], new: tuple[Entry, ...]) -> tuple[Entry, ...]:
    merged = {entry.path: entry for entry in known}
    for entry in new:
        first = merged.get(entry.path)
        merged[entry.path] = entry if first is None else replace(first, after=entry.after)
    return tuple(merged.values())


def _make_folder(folder: Path) -> None:
    """Create a folder where needed, as its parent's owner would have."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        above = folder.parent.stat()
        os.chown(folder, above.st_uid, above.st_gid, follow_symlinks=False)


def _give_to_owner(fd: int, folder: Path) -> None:
    """Let a file that root makes be its folder's owner's, who has to delete it one day."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)
