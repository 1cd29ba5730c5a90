"""Others' load, stolen time and swap, from two readings of the kernel's counters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from doctor_machines import desktop, lay_out, virtual

from agent.doctor.finding import Status
from agent.doctor.machine import Machine
from agent.doctor.neighbours import check_load, check_steal, check_swap
from agent.doctor.processes import Busy
from agent.doctor.sampling import Interval, read_counters, sample

TICKS = os.sysconf("SC_CLK_TCK")


def counted(second: int, busy: float = 0, stolen: float = 0, swapped: int = 0) -> dict[str, str]:
    """Return counters of four CPUs: seconds that the first of them was busy, and stolen."""
    first = f"cpu0 {int(busy * TICKS)} 0 0 99999 0 0 0 {int(stolen * TICKS)} 0 0"
    rest = "\n".join(f"cpu{n} 500 0 0 99999 0 0 0 0 0 0" for n in range(1, 4))
    return {
        "proc/uptime": f"{1000 + second}.00 3000.00",
        "proc/stat": f"cpu  1 2 3 4\n{first}\n{rest}\nintr 5 6",
        "proc/vmstat": f"nr_free_pages 7\npswpin {swapped}\npswpout 40",
        "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 1048572 307200 100",
    }


def interval(
    root: Path, after: Mapping[str, str], processes: tuple[Busy, ...] = (), own_s: float = 0
) -> tuple[Machine, Interval]:
    earlier = desktop(root / "before", counted(0))
    later = desktop(root / "after", after)
    return later, Interval(read_counters(earlier), read_counters(later, own_s), processes)


@pytest.mark.parametrize(
    ("busy", "status"), [(0.02, Status.OK), (0.1, Status.WARN), (0.9, Status.BAD)]
)
def test_the_load_of_others_decides(busy: float, status: Status, tmp_path: Path) -> None:
    _, watched = interval(tmp_path, counted(1, busy=busy))
    assert check_load(watched).status is status


def test_the_busiest_are_named(tmp_path: Path) -> None:
    who = (Busy(77, "make -j8", 0.8), Busy(78, "cc1", 0.1))
    _, watched = interval(tmp_path, counted(1, busy=0.9), who)
    finding = check_load(watched)
    assert "make -j8 (pid 77, 0.8 cores), cc1 (pid 78" in finding.seen
    assert finding.command == "ps -o pid,user,args -p 77,78"


def test_own_work_does_not_count(tmp_path: Path) -> None:
    _, watched = interval(tmp_path, counted(1, busy=0.9), own_s=0.9)
    assert check_load(watched).status is Status.OK


def test_tunefleets_own_work_is_no_harm(tmp_path: Path) -> None:
    who = (Busy(77, "python -m agent.measure.worker", 0.9, ours=True),)
    _, watched = interval(tmp_path, counted(1, busy=0.9), who)
    finding = check_load(watched)
    assert finding.status is Status.WARN
    assert "TuneFleet itself" in finding.advice


def test_cores_that_are_not_ours_do_not_count(tmp_path: Path) -> None:
    ours = {"proc/self/status": "Cpus_allowed_list:\t1-3"}
    _, watched = interval(tmp_path, {**counted(1, busy=0.9), **ours})
    assert watched.after.busy_s == pytest.approx(3 * 500 / TICKS)


def test_a_real_neighbour_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        watched = sample(Machine())
        other.kill()
    finding = check_load(watched)
    assert finding.status is Status.BAD
    assert f"pid {other.pid}" in finding.seen


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        (["-m", "agent.measure.worker"], True),
        (["-m", "agentless"], False),
    ],
)
def test_processes_of_tunefleet_are_told_from_others(
    line: list[str], ours: bool, tmp_path: Path
) -> None:
    # What stands behind -c and its text does not matter to Python.
    command = [sys.executable, "-c", "while True: pass", *line]
    with subprocess.Popen(command) as other:
        watched = sample(Machine())
        other.kill()
    assert {each.pid: each.ours for each in watched.processes}[other.pid] is ours


@pytest.mark.parametrize(
    ("stolen", "status"), [(0, Status.OK), (0.1, Status.WARN), (0.5, Status.BAD)]
)
def test_stolen_time_decides(stolen: float, status: Status, tmp_path: Path) -> None:
    machine, watched = interval(tmp_path, counted(1, stolen=stolen))
    assert check_steal(machine, watched).status is status


def test_swap_that_moves_is_bad_and_swap_that_rests_is_not(tmp_path: Path) -> None:
    machine, watched = interval(tmp_path / "moves", counted(1, swapped=300))
    assert check_swap(machine, watched).status is Status.BAD
    machine, watched = interval(tmp_path / "rests", counted(1))
    finding = check_swap(machine, watched)
    assert (finding.status, finding.seen) == (Status.OK, "300 MiB in use, none moving")


def test_without_counters_nothing_is_known(tmp_path: Path) -> None:
    machine = lay_out(tmp_path)
    nothing = Interval(read_counters(machine), read_counters(machine))
    found = [check_load(nothing), check_steal(machine, nothing), check_swap(machine, nothing)]
    assert [finding.status for finding in found] == [Status.UNKNOWN] * 3


def test_a_virtual_machine_whose_host_counts_nothing_does_not_know(tmp_path: Path) -> None:
    before = virtual(tmp_path / "before", counted(0))
    after = virtual(tmp_path / "after", counted(1))
    watched = Interval(read_counters(before), read_counters(after))
    assert check_steal(after, watched).status is Status.UNKNOWN
