"""May the agent do what it has to, and ``--fix`` what it could?"""

from __future__ import annotations

import os
import resource
import shlex
from pathlib import Path

from agent.doctor.finding import Finding, Status, ok
from agent.doctor.machine import Machine, nearest


def check_permissions(machine: Machine, home: Path) -> Finding:
    """Try the permissions that measuring needs, and look at those that would help.

    What only helps (priority, frequency settings) is named and makes no complaint.
    """
    name = "permissions"
    refused = _refused_folder(home)
    if refused is not None:
        owner = f"$(id -un) {shlex.quote(str(refused))}"
        return Finding(
            name,
            Status.BAD,
            f"may not write to {refused}",
            "the agent cannot keep what it measures until it is sent",
            "Make it yours, or choose another folder with --home.",
            f"sudo chown -R {owner}",
        )
    if not _may_choose_cores():
        return Finding(
            name,
            Status.WARN,
            "may not choose the cores it runs on",
            "threads move between cores while they are timed, and find cold caches there",
            "Allow sched_setaffinity in the container's or service's system call filter.",
        )
    unreadable = _unreadable_sensors(machine)
    if unreadable:
        return Finding(
            name,
            Status.WARN,
            f"may not read {unreadable[0]}" + (" and others" if len(unreadable) > 1 else ""),
            "trials that were slowed down by heat get the verdict OK",
            "Let the agent's user read it.",
            f"sudo chmod a+r {' '.join(unreadable)}",
        )
    able: list[str] = ["write its folder", "choose cores"]
    unable: list[str] = []
    settings = [policy / "scaling_governor" for policy in machine.frequency_policies()]
    if settings:
        writable = all(os.access(setting, os.W_OK) for setting in settings)
        (able if writable else unable).append("set the frequency governor")
    (able if _may_raise_priority() else unable).append("raise its priority")
    seen = f"may {', '.join(able)}"
    return ok(name, seen + (f"; may not {', '.join(unable)}" if unable else ""))


def _refused_folder(home: Path) -> Path | None:
    """Return the folder that stands in the way of using ``home``, if there is one."""
    folder = nearest(home)
    usable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return None if usable else folder


def _may_choose_cores() -> bool:
    try:
        os.sched_setaffinity(0, os.sched_getaffinity(0))
    except OSError:
        return False
    return True


def _may_raise_priority() -> bool:
    # The limit counts from 20, which is nice 0, upwards.
    return os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_NICE)[0] > 20


def _unreadable_sensors(machine: Machine) -> list[str]:
    patterns = (
        "cpu[0-9]*/thermal_throttle/core_throttle_count",
        "cpufreq/policy*/scaling_cur_freq",
    )
    found = [file for pattern in patterns for file in sorted(machine.cpu_root.glob(pattern))]
    return [machine.shown(file) for file in found if not os.access(file, os.R_OK)]
