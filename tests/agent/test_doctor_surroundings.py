"""Virtual machines, containers, memory, disk, time, and what the agent may do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from doctor_machines import CPU, board, lay_out, virtual

from agent.doctor.disk import DiskUse, check_disk, probe_disk
from agent.doctor.finding import Status
from agent.doctor.machine import Machine
from agent.doctor.permissions import check_permissions
from agent.doctor.surroundings import check_environment, check_memory
from agent.doctor.time_sync import check_clock_sync, kernel_synchronised

GIB = 2**30
GROUPS = "sys/fs/cgroup"
NOW_S = 1_800_000_000.0


def meminfo(gib: float) -> dict[str, str]:
    return {"proc/meminfo": f"MemTotal: 16370000 kB\nMemAvailable: {int(gib * 2**20)} kB"}


def test_a_virtual_machine_is_a_warning(tmp_path: Path) -> None:
    finding = check_environment(virtual(tmp_path, {".dockerenv": ""}))
    assert finding.status is Status.WARN
    assert finding.seen == "a virtual machine, in it a container (Docker)"


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({".dockerenv": ""}, "Docker"),
        ({"run/.containerenv": ""}, "Podman"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0TERM=linux"}, "lxc"),
    ],
)
def test_a_container_on_hardware_is_well(
    files: Mapping[str, str], kind: str, tmp_path: Path
) -> None:
    finding = check_environment(board(tmp_path, files))
    assert finding.status is Status.OK
    assert f"({kind})" in finding.seen


@pytest.mark.parametrize(
    "files",
    [
        {"sys/class/dmi/id/product_name": "KVM Virtual Machine"},
        {"proc/device-tree/hypervisor/compatible": "linux,kvm"},
    ],
)
def test_virtual_machines_on_arm_are_recognised(files: Mapping[str, str], tmp_path: Path) -> None:
    assert Machine(board(tmp_path, files).root).virtual


def test_a_board_is_no_virtual_machine(tmp_path: Path) -> None:
    assert check_environment(board(tmp_path)).status is Status.OK


@pytest.mark.parametrize(("gib", "status"), [(8, Status.OK), (1.5, Status.WARN), (0.4, Status.BAD)])
def test_memory_that_is_available_decides(gib: float, status: Status, tmp_path: Path) -> None:
    assert check_memory(lay_out(tmp_path, meminfo(gib))).status is status


@pytest.mark.parametrize(
    "files",
    [
        {
            "proc/self/cgroup": "0::/box",
            f"{GROUPS}/box/memory.max": str(GIB),
            f"{GROUPS}/box/memory.current": str(GIB // 2),
        },
        {
            "proc/self/cgroup": "4:memory:/box",
            f"{GROUPS}/memory/memory.limit_in_bytes": str(2**63 - 4096),
            f"{GROUPS}/memory/memory.usage_in_bytes": "7",
            f"{GROUPS}/memory/box/memory.limit_in_bytes": str(GIB),
            f"{GROUPS}/memory/box/memory.usage_in_bytes": str(GIB // 2),
        },
    ],
)
def test_a_containers_limit_of_memory_counts(files: Mapping[str, str], tmp_path: Path) -> None:
    finding = check_memory(lay_out(tmp_path, meminfo(8), files))
    assert finding.status is Status.BAD
    assert finding.seen == "0.5 GiB available, by a limit of this container"


def test_memory_that_is_not_told_is_unknown(tmp_path: Path) -> None:
    assert check_memory(lay_out(tmp_path)).status is Status.UNKNOWN


@pytest.mark.parametrize(
    ("use", "status"),
    [
        (DiskUse(50 * GIB, 0.002), Status.OK),
        (DiskUse(1 * GIB, 0.002), Status.WARN),
        (DiskUse(GIB // 8, 0.002), Status.BAD),
        (DiskUse(50 * GIB, 0.3), Status.WARN),
        (DiskUse(50 * GIB, 4.0), Status.BAD),
        (DiskUse(50 * GIB, None), Status.BAD),
    ],
)
def test_room_and_speed_of_the_disk_decide(use: DiskUse, status: Status) -> None:
    assert check_disk(Path("/home"), use).status is status


def test_the_disk_is_really_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    use = probe_disk(tmp_path / "not" / "yet")
    assert use.free_bytes > 0
    assert use.write_s is not None
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_to_is_noticed() -> None:
    assert probe_disk(Path("/proc/sys/kernel")).write_s is None


@pytest.mark.parametrize(
    ("synchronised", "files", "status"),
    [
        (True, {}, Status.OK),
        (False, {}, Status.WARN),
        (False, {"run/systemd/timesync/synchronized": ""}, Status.OK),
        (False, {"run/chrony/chronyd.pid": "312"}, Status.UNKNOWN),
        (None, {}, Status.UNKNOWN),
    ],
)
def test_whether_the_time_is_kept_right(
    synchronised: bool | None, files: Mapping[str, str], status: Status, tmp_path: Path
) -> None:
    finding = check_clock_sync(lay_out(tmp_path, files), synchronised, lambda: NOW_S)
    assert finding.status is status


def test_a_board_that_woke_in_1970_is_bad(tmp_path: Path) -> None:
    finding = check_clock_sync(lay_out(tmp_path), synchronised=True, now=lambda: 4000.0)
    assert (finding.status, finding.seen) == (Status.BAD, "the clock says 1970-01-01")


def test_this_kernel_answers_whether_its_clock_is_synchronised() -> None:
    assert kernel_synchronised() in {True, False, None}


def test_an_agent_that_may_do_everything_is_well(tmp_path: Path) -> None:
    machine = board(tmp_path / "machine")
    finding = check_permissions(machine, tmp_path / "home")
    assert finding.status is Status.OK
    assert "may write its folder, choose cores, set the frequency governor" in finding.seen
    assert not (tmp_path / "home").exists()


def test_a_folder_that_is_none_is_bad(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    finding = check_permissions(board(tmp_path / "machine"), tmp_path / "file" / "home")
    assert finding.status is Status.BAD
    assert str(tmp_path / "file") in finding.command


AS_NOBODY = """
import os, sys
from pathlib import Path
from agent.doctor.machine import Machine
from agent.doctor.permissions import check_permissions
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
finding = check_permissions(Machine(Path(sys.argv[1])), Path(sys.argv[2]))
print(finding.status, finding.seen, finding.command, sep="|")
"""


def as_nobody(machine: Machine, home: str) -> list[str]:
    """Look with the eyes of a user who may not do much."""
    arguments = [sys.executable, "-c", AS_NOBODY, str(machine.root), home]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    return done.stdout.strip().split("|")


@pytest.fixture
def open_board(tmp_path: Path) -> Machine:
    """A board's files that everybody can see, in folders that pytest closes to others."""
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.name.startswith(("pytest-", "popen-")):
            folder.chmod(0o755)
    return board(tmp_path)


def test_a_folder_of_somebody_else_is_bad(open_board: Machine) -> None:
    status, seen, command = as_nobody(open_board, "/proc/1/agent")
    assert status == "bad"
    assert seen.startswith("may not write to /proc")
    assert command.startswith("sudo chown -R $(id -un) /proc")


def test_what_only_helps_is_named_without_complaint(open_board: Machine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    status, seen, _ = as_nobody(open_board, str(home))
    assert status == "ok"
    assert "may not set the frequency governor, raise its priority" in seen


def test_counters_that_may_not_be_read_are_a_warning(open_board: Machine, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    counter = f"{CPU}/cpu0/thermal_throttle/core_throttle_count"
    lay_out(open_board.root, {counter: "0"})
    (open_board.root / counter).chmod(0o600)
    if os.geteuid() != 0:
        pytest.skip("only root can hide a file from somebody else")
    status, seen, command = as_nobody(open_board, str(home))
    assert (status, seen) == ("warn", f"may not read /{counter}")
    assert command == f"sudo chmod a+r /{counter}"
