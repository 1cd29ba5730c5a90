"""Which cores there are for us: kinds, siblings, memory nodes, time limits."""

from __future__ import annotations

from agent.doctor.cgroups import cpu_quota, own_groups
from agent.doctor.finding import Change, Finding, Status, ok, unknown, write_command
from agent.doctor.machine import Machine, format_cpus, read_number
from agent.doctor.sampling import Interval
from agent.profile.sysfs import parse_cpu_list, read_text

_BALANCING = "/proc/sys/kernel/numa_balancing"


def check_cores(machine: Machine) -> Finding:
    """Look for cores of different speed under one parallel loop."""
    name = "cores"
    cpus = machine.cpus
    seen = f"CPU {format_cpus(cpus)}"
    online = machine.cpu_list("/sys/devices/system/cpu/online")
    if online and len(cpus) < len(online):
        seen += f" ({len(cpus)} of {len(online)})"
    kinds: dict[int, list[int]] = {}
    for cpu in cpus:
        capacity = read_number(machine.cpu_root / f"cpu{cpu}" / "cpu_capacity")
        kinds.setdefault(capacity or 0, []).append(cpu)
    if len(kinds) == 1:
        return ok(name, seen)
    fastest = format_cpus(tuple(kinds[max(kinds)]))
    each = (f"{format_cpus(tuple(of))} at {capacity}" for capacity, of in sorted(kinds.items()))
    return Finding(
        name,
        Status.WARN,
        f"{seen}, of different capacity: {', '.join(each)}",
        "a parallel loop waits for its slowest core, and a serial one is fast or slow as the "
        "scheduler happens to place it",
        "Give the agent cores of one kind.",
        f"taskset -c {fastest} tunefleet-agent run …",
    )


def check_smt(machine: Machine) -> Finding:
    """Look for CPUs that share a core, with each other or with somebody else."""
    name = "smt"
    groups: dict[frozenset[int], list[int]] = {}
    for cpu in machine.cpus:
        topology = machine.cpu_root / f"cpu{cpu}" / "topology"
        siblings = read_text(topology / "core_cpus_list") or read_text(
            topology / "thread_siblings_list"
        )
        if siblings is None:
            return unknown(name, machine.untold("which of its CPUs share a core"))
        groups.setdefault(parse_cpu_list(siblings), []).append(cpu)
    if all(len(siblings) == 1 for siblings in groups):
        if machine.virtual:
            return unknown(name, machine.untold("whether its CPUs share cores of the host"))
        return ok(name, "each of our CPUs is a core of its own")
    one_each = tuple(sorted(cpus[0] for cpus in groups.values()))
    shared = sum(len(cpus) > 1 for cpus in groups.values())
    if shared:
        return Finding(
            name,
            Status.WARN,
            f"{len(machine.cpus)} CPUs are {len(groups)} cores with two or more threads each",
            "two threads on one core take turns, and how they do differs from run to run",
            "Give the agent one CPU of each core.",
            f"taskset -c {format_cpus(one_each)} tunefleet-agent run …",
        )
    others = frozenset[int]().union(*groups) - set(machine.cpus)
    return ok(name, f"one CPU of each core is ours; {format_cpus(tuple(others))} should stay idle")


def check_numa(machine: Machine) -> Finding:
    """Look for memory that is nearer to some of our cores than to others."""
    name = "numa"
    nodes = [
        node.name.removeprefix("node")
        for node in sorted(machine.path("/sys/devices/system/node").glob("node[0-9]*"))
        if machine.cpu_list(f"/sys/devices/system/node/{node.name}/cpulist") & {*machine.cpus}
    ]
    if not nodes:
        return unknown(name, machine.untold("its memory nodes"))
    if len(nodes) == 1:
        return ok(name, "all our cores are on one memory node")
    balancing = (machine.number(_BALANCING) or 0) > 0
    command = f"numactl --cpunodebind={nodes[0]} --membind={nodes[0]} tunefleet-agent run …"
    advice = "Give the agent one node, or tune for all of them on purpose."
    if balancing:
        command = write_command([_BALANCING], "0")
        advice = "Stop the kernel from moving pages while measuring. " + advice
    return Finding(
        name,
        Status.WARN,
        f"our cores are on {len(nodes)} memory nodes"
        + (", and the kernel moves pages between them" if balancing else ""),
        "reading the other node's memory is slower, and where a page lies differs from run to run",
        advice,
        command,
        (Change(_BALANCING, "0"),) if balancing else (),
    )


def check_cpu_limit(machine: Machine, interval: Interval) -> Finding:
    """Look for a limit of CPU time, after which the kernel pauses us until the next period."""
    name = "cpu_limit"
    if not own_groups(machine, "cpu"):
        return unknown(name, machine.untold("any limit of CPU time"))
    quota = cpu_quota(machine)
    if quota is None:
        return ok(name, "none")
    seen = f"{quota:g} cores' time for {len(machine.cpus)} cores"
    if quota >= len(machine.cpus):
        return ok(name, seen)
    pauses = interval.after.quota_pauses
    return Finding(
        name,
        Status.BAD,
        seen + (f"; paused {pauses:,} times so far" if pauses else ""),
        "when the time of a period is used up everything of ours is paused, in the middle of a "
        "measurement too",
        "Give whole cores instead of a share of time (--cpuset-cpus in place of --cpus, "
        "AllowedCPUs in place of CPUQuota), or let the agent use fewer.",
        f"tunefleet-agent run --cores {max(1, int(quota))} …",
    )
