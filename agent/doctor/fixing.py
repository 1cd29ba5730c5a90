"""Change settings, and restore exactly what was changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from agent.doctor.finding import Change, write_command
from agent.doctor.machine import Machine
from agent.doctor.undo_log import CONSEQUENCES, Entry, UndoFile, UndoLog, make_entry

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Result(StrEnum):
    """What became of a setting."""

    CHANGED = "changed"
    RESTORED = "restored"
    UNCHANGED = "unchanged"
    """It had the old value already."""
    LEFT = "left"
    """Somebody else has set it meanwhile, and meant it."""
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of one setting, and how a person would set it."""

    path: str
    result: Result
    wanted: str
    """The value that was to be there."""
    present: str | None
    """The value that is there now."""
    reason: str = ""
    command: str = ""
    """What to type where it failed or was left."""


def apply(machine: Machine, undo: UndoFile, changes: Sequence[Change]) -> list[Outcome]:
    """Make the changes, the old values being noted before the first of them.

    May be called again: the first old values stay noted. Call it within ``undo.locked()``.

    Raises:
        TuneFleetError: the old values cannot be noted; nothing was changed.
    """
    known = _of_this_start(machine, undo.read())
    wanted = [
        entry
        for change in changes
        if (entry := make_entry(change.path, machine.text(change.path), change.value))
        and entry.before != entry.after
    ]
    if not wanted:
        return []
    present = tuple(_consequences(machine, wanted))
    undo.write(known.with_new(tuple(wanted), present))
    outcomes = [_set(machine, entry.path, str(entry.after), Result.CHANGED) for entry in wanted]
    failed = {each.path for each in outcomes if each.result is Result.FAILED}
    made = tuple(entry for entry in wanted if entry.path not in failed)
    after = tuple(replace(entry, after=machine.text(entry.path)) for entry in present)
    log = known.with_new(made, tuple(entry for entry in after if entry.before != entry.after))
    if log.settings:
        undo.write(log)
    else:
        undo.delete()
    return outcomes


def restore(machine: Machine, undo: UndoFile) -> list[Outcome]:
    """Restore what :func:`apply` changed, the last first; what failed stays noted.

    Call it within ``undo.locked()``.

    Raises:
        TuneFleetError: the notes cannot be read.
    """
    log = _of_this_start(machine, undo.read())
    # Before any of it is touched: the kernel will change the consequences again.
    touched = {
        entry.path
        for entry in (*log.settings, *log.consequences)
        if entry.after is not None
        and machine.text(entry.path) not in {entry.before, entry.after, None}
    }
    outcomes: list[Outcome] = []
    # A limit of the clock can only be set where turbo permits it, so the consequences come last.
    for entry in (*reversed(log.settings), *log.consequences):
        if entry.path in touched:
            outcomes.append(_left(machine, entry))
        elif machine.text(entry.path) == entry.before:
            outcomes.append(Outcome(entry.path, Result.UNCHANGED, entry.before, entry.before))
        else:
            outcomes.append(_set(machine, entry.path, entry.before, Result.RESTORED))
    failed = {each.path for each in outcomes if each.result is Result.FAILED}
    if failed:
        undo.write(log.restricted_to(failed))
    else:
        undo.delete()
    return outcomes


def _of_this_start(machine: Machine, log: UndoLog | None) -> UndoLog:
    """Return the log, emptied if the machine was restarted: its settings are gone since."""
    boot_id = machine.text(_BOOT_ID)
    if log is None or (boot_id and log.boot_id and boot_id != log.boot_id):
        return UndoLog(boot_id)
    return log


def _consequences(machine: Machine, wanted: Iterable[Entry]) -> Iterator[Entry]:
    """Note what the kernel changes along with a policy's settings.

    With the governor performance amd-pstate sets the energy preference to performance and leaves it
    there (https://github.com/FeralInteractive/gamemode/issues/419), and switching turbo resets the
    limits of the clock.
    """
    if not any("/sys/devices/system/cpu/" in entry.path for entry in wanted):
        return
    for policy in machine.frequency_policies():
        for name in CONSEQUENCES:
            path = machine.shown(policy / name)
            entry = make_entry(path, machine.text(path), None)
            if entry is not None:
                yield entry


def _set(machine: Machine, path: str, value: str, success: Result) -> Outcome:
    command = write_command([path], value)
    try:
        # Never created: what is not there the kernel does not offer.
        fd = os.open(machine.path(path), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)
    except OSError as e:
        reason = e.strerror or str(e)
        return Outcome(path, Result.FAILED, value, machine.text(path), reason, command)
    present = machine.text(path)
    if present != value:
        reason = f"the kernel took it and kept {present}"
        return Outcome(path, Result.FAILED, value, present, reason, command)
    return Outcome(path, success, value, present)


def _left(machine: Machine, entry: Entry) -> Outcome:
    present = machine.text(entry.path)
    return Outcome(
        entry.path,
        Result.LEFT,
        entry.before,
        present,
        f"somebody has set it to {present} since; it was {entry.before} before",
        write_command([entry.path], entry.before),
    )
