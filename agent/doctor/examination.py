"""All checks, in the order in which a person should look at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from agent.doctor import (
    compiling,
    cores,
    disk,
    frequency,
    heat,
    neighbours,
    permissions,
    software,
    surroundings,
    time_sync,
)
from agent.doctor.finding import Change, Finding, unknown
from agent.doctor.machine import Machine
from agent.doctor.sampling import Interval, sample

Check = Callable[[], Finding]

_WARM_UP_S = 0.1
"""Governors look at a core's load every 10 ms or so; then its clock is what work gets."""


def examine(machine: Machine, home: Path, *, quick: bool) -> list[Finding]:
    """Look at everything. Takes a second, and without ``quick`` some more for the compiler.

    Args:
        machine: where to read.
        home: the agent's folder, which need not exist.
        quick: leave out what takes longer.
    """
    interval = sample(machine)
    checks = [
        *_hardware_checks(machine, interval),
        ("disk", lambda: disk.check_disk(home, disk.probe_disk(home))),
        (
            "clock_sync",
            lambda: time_sync.check_clock_sync(machine, time_sync.kernel_synchronised()),
        ),
        ("permissions", lambda: permissions.check_permissions(machine, home)),
        ("libraries", software.check_libraries),
        ("environment", lambda: surroundings.check_environment(machine)),
        ("compiler", compiling.skip_compiler if quick else compiling.check_compiler),
    ]
    return [_run(name, check) for name, check in checks]


def fixes(machine: Machine) -> list[Change]:
    """Return what ``--fix`` would write, without looking at anything else."""
    checks: list[tuple[str, Check]] = [
        ("governor", lambda: frequency.check_governor(machine)),
        ("turbo", lambda: frequency.check_turbo(machine)),
        ("numa", lambda: cores.check_numa(machine)),
    ]
    return [change for name, check in checks for change in _run(name, check).changes]


def _hardware_checks(machine: Machine, interval: Interval) -> list[tuple[str, Check]]:
    return [
        ("governor", lambda: frequency.check_governor(machine)),
        ("turbo", lambda: frequency.check_turbo(machine)),
        ("temperature", lambda: heat.check_temperature(machine)),
        ("throttling", lambda: heat.check_throttling(machine, interval)),
        ("power", lambda: heat.check_power(machine)),
        ("clock", lambda: _check_clock(machine)),
        ("clocksource", lambda: frequency.check_clocksource(machine)),
        ("load", lambda: neighbours.check_load(interval)),
        ("steal", lambda: neighbours.check_steal(machine, interval)),
        ("cores", lambda: cores.check_cores(machine)),
        ("smt", lambda: cores.check_smt(machine)),
        ("numa", lambda: cores.check_numa(machine)),
        ("cpu_limit", lambda: cores.check_cpu_limit(machine, interval)),
        ("memory", lambda: surroundings.check_memory(machine)),
        ("swap", lambda: neighbours.check_swap(machine, interval)),
    ]


def _check_clock(machine: Machine) -> Finding:
    if machine.frequency_policies():
        until = time.monotonic() + _WARM_UP_S
        while time.monotonic() < until:
            pass
    return frequency.check_clock(machine)


def _run(name: str, check: Check) -> Finding:
    """Run a check; a file in a form nobody foresaw must not hide what the others found."""
    try:
        return check()
    except Exception as e:
        return unknown(
            name,
            f"the check itself failed: {type(e).__name__}: {e}",
            "Report this as a bug, with the file it read.",
        )
