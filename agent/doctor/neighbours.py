"""Does anybody else use what we measure on? Other processes, other virtual machines, swap."""

from __future__ import annotations

from agent.doctor.finding import Finding, Status, ok, unknown
from agent.doctor.machine import Machine
from agent.doctor.sampling import Interval

LOAD_WARN_CORES = 0.05
"""An idle machine's own services stay below this."""
LOAD_BAD_CORES = 0.2
"""With more than this beside it a trial on all cores gets the verdict CONTENDED."""
STEAL_WARN_SHARE = 0.005
"""Of the time of our CPUs; more than a pause of one tick in two seconds."""
STEAL_BAD_SHARE = 0.05
"""Beyond this hardly any sample of 100 ms is free of a pause."""


def check_load(interval: Interval) -> Finding:
    """Tell how busy others keep the CPUs we may use, and who they are."""
    name = "load"
    cores = interval.foreign_cores
    if cores is None:
        return unknown(name, "the kernel keeps no CPU times in /proc/stat")
    seen = f"others keep {cores:.2f} cores busy"
    if cores < LOAD_WARN_CORES:
        return ok(name, seen)
    if interval.processes:
        seen += f": {', '.join(map(str, interval.processes))}"
    else:
        seen += "; by whom cannot be seen from here"
    status = Status.BAD if cores > LOAD_BAD_CORES else Status.WARN
    why = "they take cores, caches and memory bandwidth from what is being timed"
    if interval.processes and all(process.ours for process in interval.processes):
        advice = "TuneFleet itself is at work; look again when the agent has none."
        return Finding(name, Status.WARN, seen, why, advice)
    pids = [str(process.pid) for process in interval.processes if not process.ours]
    return Finding(
        name,
        status,
        seen,
        why,
        "End or move what need not run here, or give the agent cores of its own with taskset.",
        f"ps -o pid,user,args -p {','.join(pids)}" if pids else "",
    )


def check_steal(machine: Machine, interval: Interval) -> Finding:
    """Tell how much time the hypervisor gave to other virtual machines."""
    name = "steal"
    stolen = interval.stolen_cores
    if stolen is None:
        return unknown(name, machine.untold("what its host takes away"))
    if machine.virtual and not interval.after.stolen_s:
        return unknown(name, "a virtual machine whose host took nothing, or does not count it")
    share = stolen / len(machine.cpus)
    seen = f"{share:.1%} of our cores' time went to other virtual machines"
    if share < STEAL_WARN_SHARE:
        return ok(name, seen if stolen else "none")
    return Finding(
        name,
        Status.BAD if share > STEAL_BAD_SHARE else Status.WARN,
        seen,
        "a program that is paused seems slow, and cannot see that it was paused",
        "Ask for cores of its own for this virtual machine, or measure elsewhere.",
    )


def check_swap(machine: Machine, interval: Interval) -> Finding:
    """Tell whether memory is being moved to disk and back."""
    name = "swap"
    moved = interval.swapped_pages
    sizes = (machine.text("/proc/swaps") or "").splitlines()
    if moved is None or not sizes:
        return unknown(name, machine.untold("what it swaps"))
    used_kb = sum(int(line.split()[3]) for line in sizes[1:])
    if moved:
        return Finding(
            name,
            Status.BAD,
            f"{moved:,} pages moved within a second",
            "a program that waits for its memory to come from disk seems slow",
            "End what fills the memory; see which processes are large.",
            "ps -eo rss,pid,args --sort=-rss | head",
        )
    if len(sizes) == 1:
        return ok(name, "there is none")
    return ok(name, f"{used_kb / 1024:,.0f} MiB in use, none moving")
