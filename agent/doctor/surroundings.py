"""Where the agent runs: on what kind of machine, and with how much memory."""

from __future__ import annotations

from agent.doctor.cgroups import memory_left
from agent.doctor.finding import Finding, Status, ok, unknown
from agent.doctor.machine import Machine

GIB = 2**30
MEMORY_WARN_BYTES = 2 * GIB
"""Searching, measuring and profiling take about half a GiB each before they hold any tensor."""
MEMORY_BAD_BYTES = 1 * GIB


def check_environment(machine: Machine) -> Finding:
    """Tell a virtual machine and a container."""
    name = "environment"
    container = _container(machine)
    if machine.virtual:
        return Finding(
            name,
            Status.WARN,
            "a virtual machine" + (f", in it a container ({container})" if container else ""),
            "clock, heat and neighbours are the host's, and do not show here",
            "Trust comparisons within a short time; measure final figures on the hardware itself.",
        )
    if container:
        return ok(name, f"a container ({container}); processes outside it do not show by name")
    return ok(name, "no virtual machine or container that says so")


def check_memory(machine: Machine) -> Finding:
    """Tell whether there is enough memory to search and measure, limits of containers included."""
    name = "memory"
    available = _meminfo_bytes(machine, "MemAvailable")
    if available is None:
        return unknown(name, machine.untold("how much memory is available"))
    left = memory_left(machine)
    limited = left is not None and left < available
    free = min(available, left) if left is not None else available
    seen = f"{free / GIB:.1f} GiB available" + (", by a limit of this container" * limited)
    if free >= MEMORY_WARN_BYTES:
        return ok(name, seen)
    return Finding(
        name,
        Status.BAD if free < MEMORY_BAD_BYTES else Status.WARN,
        seen,
        "candidates that would run are counted as OUT_OF_MEMORY, or the system starts to swap",
        "Raise the limit." if limited else "End what fills the memory.",
        "" if limited else "ps -eo rss,pid,args --sort=-rss | head",
    )


def _container(machine: Machine) -> str:
    for mark, kind in (("/.dockerenv", "Docker"), ("/run/.containerenv", "Podman")):
        if machine.path(mark).exists():
            return kind
    environment = (machine.text("/proc/1/environ") or "").split("\0")
    named = [entry.partition("=")[2] for entry in environment if entry.startswith("container=")]
    return named[0] if named else machine.text("/run/systemd/container") or ""


def _meminfo_bytes(machine: Machine, field: str) -> int | None:
    for line in (machine.text("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        digits = value.removesuffix("kB").strip()
        if name == field and digits.isdecimal():
            return int(digits) * 1024
    return None
