"""What ``--fix`` changes and ``--undo`` restores, on trees of real files."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_machines import CPU, board, desktop, lay_out

from agent.doctor.examination import fixes
from agent.doctor.finding import Change
from agent.doctor.fixing import Outcome, Result, apply, restore
from agent.doctor.machine import Machine
from agent.doctor.undo_log import UndoFile
from tunefleet.errors import Reason, TuneFleetError

GOVERNOR = f"/{CPU}/cpufreq/policy0/scaling_governor"
PREFERENCE = f"/{CPU}/cpufreq/policy0/energy_performance_preference"
BOOST = f"/{CPU}/cpufreq/boost"
BOOT = "/proc/sys/kernel/random/boot_id"

FIX_AND_DIE = """
import os, signal, sys
from pathlib import Path
from agent.doctor import fixing
from agent.doctor.examination import fixes
from agent.doctor.machine import Machine
from agent.doctor.undo_log import UndoFile

machine, undo, left = Machine(Path(sys.argv[1])), UndoFile(Path(sys.argv[2])), int(sys.argv[3])
set_one = fixing._set

def set_until_killed(*arguments):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return set_one(*arguments)

fixing._set = set_until_killed
with undo.locked():
    fixing.apply(machine, undo, fixes(machine))
"""


@pytest.fixture
def undo(tmp_path: Path) -> UndoFile:
    return UndoFile(tmp_path / "home")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A board with a governor and turbo that should be changed."""
    return board(tmp_path / "machine", {BOOST[1:]: "1"}, scaling_governor="ondemand")


def fix(machine: Machine, undo: UndoFile, changes: list[Change] | None = None) -> list[Outcome]:
    with undo.locked():
        return apply(machine, undo, fixes(machine) if changes is None else changes)


def fix_and_die(machine: Machine, undo: UndoFile, writes: int) -> int:
    """Fix in a process that is killed before it writes another setting."""
    arguments = [str(machine.root), str(undo.path.parent), str(writes)]
    return subprocess.run([sys.executable, "-c", FIX_AND_DIE, *arguments], check=False).returncode


def unfix(machine: Machine, undo: UndoFile) -> list[Outcome]:
    with undo.locked():
        return restore(machine, undo)


def set_file(machine: Machine, path: str, value: str) -> None:
    machine.path(path).write_text(value + "\n", encoding="utf-8")


def snapshot(root: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_fix_changes_governor_and_turbo_and_nothing_else(
    machine: Machine, undo: UndoFile
) -> None:
    before = snapshot(machine.root)
    outcomes = fix(machine, undo)
    after = snapshot(machine.root)
    assert [outcome.result for outcome in outcomes] == [Result.CHANGED] * 2
    changed = {
        f"/{path.relative_to(machine.root)}" for path in before if before[path] != after[path]
    }
    assert (machine.text(GOVERNOR), machine.text(BOOST)) == ("performance", "0")
    assert {GOVERNOR, BOOST} <= changed
    assert all("cpufreq" in path for path in changed)


def test_an_undo_restores_every_file_and_forgets(machine: Machine, undo: UndoFile) -> None:
    before = snapshot(machine.root)
    fix(machine, undo)
    outcomes = unfix(machine, undo)
    assert snapshot(machine.root) == before
    assert {outcome.result for outcome in outcomes} == {Result.RESTORED}
    assert not undo.path.exists()


def test_settings_are_restored_in_reverse_order(machine: Machine, undo: UndoFile) -> None:
    made = [outcome.path for outcome in fix(machine, undo)]
    assert [outcome.path for outcome in unfix(machine, undo)] == made[::-1]


def test_a_second_fix_keeps_the_first_old_values(machine: Machine, undo: UndoFile) -> None:
    fix(machine, undo)
    set_file(machine, GOVERNOR, "powersave")
    fix(machine, undo)
    unfix(machine, undo)
    assert (machine.text(GOVERNOR), machine.text(BOOST)) == ("ondemand", "1")


def test_a_fix_of_what_is_well_notes_nothing(tmp_path: Path, undo: UndoFile) -> None:
    machine = desktop(tmp_path / "machine", scaling_governor="performance")
    assert fix(machine, undo) == []
    assert not undo.path.exists()


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_a_fix_that_was_killed_can_be_undone(writes: int, machine: Machine, undo: UndoFile) -> None:
    before = snapshot(machine.root)
    returncode = fix_and_die(machine, undo, writes)
    assert returncode == (0 if writes == 2 else -signal.SIGKILL)
    results = [outcome.result for outcome in unfix(machine, undo)]
    assert results.count(Result.RESTORED) == writes
    assert snapshot(machine.root) == before
    assert not undo.path.exists()


def test_what_somebody_else_set_meanwhile_is_left_and_named(
    machine: Machine, undo: UndoFile
) -> None:
    fix(machine, undo)
    set_file(machine, GOVERNOR, "schedutil")
    by_path = {outcome.path: outcome for outcome in unfix(machine, undo)}
    left = by_path[GOVERNOR]
    assert (left.result, left.wanted, left.present) == (Result.LEFT, "ondemand", "schedutil")
    assert left.command == f"echo ondemand | sudo tee {GOVERNOR}"
    assert by_path[BOOST].result is Result.RESTORED
    assert machine.text(GOVERNOR) == "schedutil"
    assert not undo.path.exists()


def test_what_the_kernel_changed_along_with_it_is_restored_too(
    tmp_path: Path, undo: UndoFile
) -> None:
    machine = desktop(tmp_path / "machine", energy_performance_preference="balance_power")
    fix_and_die(machine, undo, writes=1)
    # As amd-pstate does with a governor.
    set_file(machine, PREFERENCE, "performance")
    unfix(machine, undo)
    assert machine.text(PREFERENCE) == "balance_power"
    assert machine.text(GOVERNOR) == "powersave"


def test_after_a_restart_nothing_of_ours_is_left_to_undo(machine: Machine, undo: UndoFile) -> None:
    machine.path(BOOT).parent.mkdir(parents=True)
    set_file(machine, BOOT, "11111111-1111-1111-1111-111111111111")
    fix(machine, undo)
    set_file(machine, BOOT, "22222222-2222-2222-2222-222222222222")
    assert unfix(machine, undo) == []
    assert machine.text(GOVERNOR) == "performance"
    assert not undo.path.exists()


def test_a_fix_after_a_restart_notes_the_values_of_now(machine: Machine, undo: UndoFile) -> None:
    machine.path(BOOT).parent.mkdir(parents=True)
    set_file(machine, BOOT, "11111111-1111-1111-1111-111111111111")
    fix(machine, undo)
    set_file(machine, BOOT, "22222222-2222-2222-2222-222222222222")
    set_file(machine, GOVERNOR, "schedutil")
    fix(machine, undo)
    unfix(machine, undo)
    assert machine.text(GOVERNOR) == "schedutil"


@pytest.fixture
def forbidden(tmp_path: Path) -> Machine:
    """A machine whose governor is a file of this kernel that nobody may write, root included."""
    path = tmp_path / "machine" / GOVERNOR[1:]
    path.parent.mkdir(parents=True)
    path.symlink_to("/proc/sys/kernel/ostype")
    return lay_out(tmp_path / "machine", {BOOST[1:]: "1"})


CHANGES = [Change(GOVERNOR, "performance"), Change(BOOST, "0")]


def test_a_write_that_is_refused_is_reported_and_the_others_are_made(
    forbidden: Machine, undo: UndoFile
) -> None:
    refused, made = fix(forbidden, undo, CHANGES)
    assert (refused.result, refused.present) == (Result.FAILED, "Linux")
    assert refused.reason
    assert refused.command == f"echo performance | sudo tee {GOVERNOR}"
    assert made.result is Result.CHANGED


def test_a_write_that_was_refused_is_not_undone(forbidden: Machine, undo: UndoFile) -> None:
    fix(forbidden, undo, CHANGES)
    assert [outcome.path for outcome in unfix(forbidden, undo)] == [BOOST]


def test_a_fix_that_was_refused_altogether_leaves_nothing_to_undo(
    forbidden: Machine, undo: UndoFile
) -> None:
    fix(forbidden, undo, CHANGES[:1])
    assert not undo.path.exists()


def test_what_cannot_be_restored_stays_noted_for_another_try(
    machine: Machine, undo: UndoFile
) -> None:
    fix(machine, undo)
    governor = machine.path(GOVERNOR)
    governor.unlink()
    governor.mkdir()
    results = {outcome.path: outcome.result for outcome in unfix(machine, undo)}
    assert results == {GOVERNOR: Result.FAILED, BOOST: Result.RESTORED}
    governor.rmdir()
    set_file(machine, GOVERNOR, "performance")
    assert [outcome.path for outcome in unfix(machine, undo)] == [GOVERNOR]
    assert machine.text(GOVERNOR) == "ondemand"
    assert not undo.path.exists()


def test_a_kernel_that_takes_a_value_and_keeps_another_has_not_changed(
    tmp_path: Path, undo: UndoFile
) -> None:
    path = tmp_path / "machine" / GOVERNOR[1:]
    path.parent.mkdir(parents=True)
    # Of a process's name the kernel keeps 15 characters.
    path.symlink_to("/proc/self/comm")
    name = path.read_text()
    outcome = fix(lay_out(tmp_path / "machine"), undo, [Change(GOVERNOR, "much-too-long-for-it")])[
        0
    ]
    path.write_text(name)
    assert (outcome.result, outcome.present) == (Result.FAILED, "much-too-long-f")


def test_nothing_is_changed_where_old_values_cannot_be_noted(
    machine: Machine, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TuneFleetError) as refused:
        fix(machine, UndoFile(tmp_path / "file" / "home"))
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert machine.text(GOVERNOR) == "ondemand"


def test_two_doctors_do_not_meet_in_a_folder(machine: Machine, undo: UndoFile) -> None:
    with undo.locked(), pytest.raises(TuneFleetError) as refused:
        fix(machine, undo)
    assert refused.value.reason is Reason.HOME_IN_USE
    assert machine.text(GOVERNOR) == "ondemand"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        f"/{CPU}/cpufreq/policy0/../../../../../../etc/passwd",
        f"/{CPU}/cpufreq/policy0/scaling_setspeed",
    ],
)
def test_notes_of_other_files_than_a_doctors_are_refused(
    path: str, machine: Machine, undo: UndoFile
) -> None:
    fix(machine, undo)
    noted = json.loads(undo.path.read_text())
    noted["settings"][0]["path"] = path
    undo.path.write_text(json.dumps(noted))
    with pytest.raises(TuneFleetError, match="no setting of a doctor's"):
        unfix(machine, undo)
    assert machine.text(BOOST) == "0"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 7}', '{"format": 1, "boot_id": 1}'])
def test_notes_that_are_damaged_are_refused(text: str, machine: Machine, undo: UndoFile) -> None:
    fix(machine, undo)
    undo.path.write_text(text)
    with pytest.raises(TuneFleetError) as refused:
        unfix(machine, undo)
    assert str(undo.path) in refused.value.message


def test_the_notes_are_for_their_owner_only(machine: Machine, undo: UndoFile) -> None:
    fix(machine, undo)
    assert stat.S_IMODE(undo.path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write in somebody else's folder")
def test_what_root_notes_belongs_to_the_folders_owner(machine: Machine, tmp_path: Path) -> None:
    somebody = 65534
    os.chown(tmp_path, somebody, somebody)
    undo = UndoFile(tmp_path / "share" / "agent")
    fix(machine, undo)
    made = [undo.path, *undo.path.parents[:2]]
    assert {path.stat().st_uid for path in made} == {somebody}
