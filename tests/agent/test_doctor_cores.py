"""Kinds of cores, siblings, memory nodes and limits of CPU time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from doctor_machines import CPU, board, desktop, lay_out, virtual
from profile_machines import rock_5

from agent.doctor.cores import check_cores, check_cpu_limit, check_numa, check_smt
from agent.doctor.finding import Change, Finding, Status
from agent.doctor.machine import Machine, format_cpus
from agent.doctor.sampling import Interval, read_counters

NODES = "sys/devices/system/node"
GROUPS = "sys/fs/cgroup"
TWO_NODES = {f"{NODES}/node0/cpulist": "0-1", f"{NODES}/node1/cpulist": "2-3"}


def only(cpus: str) -> dict[str, str]:
    return {"proc/self/status": f"Cpus_allowed_list:\t{cpus}"}


def siblings(*groups: str) -> dict[str, str]:
    """Return the topology of four CPUs, given the siblings of each."""
    return {f"{CPU}/cpu{n}/topology/core_cpus_list": group for n, group in enumerate(groups)}


def test_cores_of_one_kind_are_well(tmp_path: Path) -> None:
    finding = check_cores(desktop(tmp_path, only("0-2")))
    assert (finding.status, finding.seen) == (Status.OK, "CPU 0-2 (3 of 4)")


def test_cores_of_two_kinds_are_named_with_how_to_choose(tmp_path: Path) -> None:
    finding = check_cores(lay_out(tmp_path, rock_5()))
    assert finding.status is Status.WARN
    assert finding.command == "taskset -c 4-7 tunefleet-agent run …"
    assert "0-3 at 414, 4-7 at 1024" in finding.seen


def test_an_agent_that_has_chosen_one_kind_is_well(tmp_path: Path) -> None:
    assert check_cores(lay_out(tmp_path, rock_5(), only("4-7"))).status is Status.OK


def test_cpus_that_share_a_core_are_noticed(tmp_path: Path) -> None:
    finding = check_smt(desktop(tmp_path, siblings("0,2", "1,3", "0,2", "1,3")))
    assert finding.status is Status.WARN
    assert finding.command == "taskset -c 0-1 tunefleet-agent run …"


def test_one_cpu_of_each_core_is_well(tmp_path: Path) -> None:
    files = siblings("0,2", "1,3", "0,2", "1,3")
    finding = check_smt(desktop(tmp_path, files, only("0-1")))
    assert finding.status is Status.OK
    assert "2-3 should stay idle" in finding.seen


def test_cores_without_siblings_are_well(tmp_path: Path) -> None:
    assert check_smt(board(tmp_path)).status is Status.OK


def test_a_virtual_machine_does_not_tell_that_its_cpus_share_nothing(tmp_path: Path) -> None:
    assert check_smt(virtual(tmp_path / "shared")).status is Status.WARN
    alone = {
        name.replace("core_cpus", "thread_siblings"): text
        for name, text in siblings("0", "1", "2", "3").items()
    }
    assert check_smt(virtual(tmp_path / "alone", alone)).status is Status.UNKNOWN


def test_cores_on_two_nodes_are_a_warning(tmp_path: Path) -> None:
    finding = check_numa(desktop(tmp_path, TWO_NODES))
    assert (finding.status, finding.changes) == (Status.WARN, ())
    assert finding.command.startswith("numactl --cpunodebind=0 --membind=0 ")


def test_pages_that_are_moved_can_be_stopped(tmp_path: Path) -> None:
    balancing = {"proc/sys/kernel/numa_balancing": "1"}
    finding = check_numa(desktop(tmp_path, TWO_NODES, balancing))
    assert finding.changes == (Change("/proc/sys/kernel/numa_balancing", "0"),)


def test_one_node_is_well(tmp_path: Path) -> None:
    assert check_numa(desktop(tmp_path, TWO_NODES, only("0-1"))).status is Status.OK


def test_nodes_that_are_not_told_are_unknown(tmp_path: Path) -> None:
    assert check_numa(desktop(tmp_path)).status is Status.UNKNOWN


def limited(root: Path, files: Mapping[str, str]) -> tuple[Machine, Finding]:
    machine = desktop(root, files)
    now = read_counters(machine)
    return machine, check_cpu_limit(machine, Interval(now, now))


V2 = {"proc/self/cgroup": "0::/box/agent", f"{GROUPS}/cgroup.controllers": "cpu memory"}
V1 = {
    "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n0::/",
    f"{GROUPS}/cpu,cpuacct/box/cpu.cfs_period_us": "100000",
}


@pytest.mark.parametrize(
    ("files", "status", "seen"),
    [
        ({**V2, f"{GROUPS}/box/agent/cpu.max": "max 100000"}, Status.OK, "none"),
        ({**V2, f"{GROUPS}/box/agent/cpu.max": "400000 100000"}, Status.OK, "4 cores' time"),
        ({**V2, f"{GROUPS}/box/agent/cpu.max": "150000 100000"}, Status.BAD, "1.5 cores' time"),
        # The limit of a group that ours lies in.
        (
            {
                **V2,
                f"{GROUPS}/box/agent/cpu.max": "max 100000",
                f"{GROUPS}/box/cpu.max": "50000 100000",
                f"{GROUPS}/box/cpu.stat": "nr_periods 9\nnr_throttled 6",
            },
            Status.BAD,
            "0.5 cores' time for 4 cores; paused 6 times so far",
        ),
        # In a container the root of what is mounted is our own group.
        ({**V2, f"{GROUPS}/cpu.max": "200000 100000"}, Status.BAD, "2 cores' time"),
        ({**V1, f"{GROUPS}/cpu,cpuacct/box/cpu.cfs_quota_us": "-1"}, Status.OK, "none"),
        ({**V1, f"{GROUPS}/cpu,cpuacct/box/cpu.cfs_quota_us": "250000"}, Status.BAD, "2.5 cores"),
        ({}, Status.UNKNOWN, "any limit of CPU time"),
    ],
)
def test_limits_of_cpu_time_are_found(
    files: Mapping[str, str], status: Status, seen: str, tmp_path: Path
) -> None:
    _, finding = limited(tmp_path, files)
    assert finding.status is status
    assert seen in finding.seen


@pytest.mark.parametrize(
    ("cpus", "text"), [((0,), "0"), ((3, 1, 2), "1-3"), ((0, 2, 3, 8), "0,2-3,8"), ((), "")]
)
def test_cpus_are_written_as_taskset_reads_them(cpus: tuple[int, ...], text: str) -> None:
    assert format_cpus(cpus) == text
