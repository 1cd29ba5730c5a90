"""What the kernel counted over a second: work of others, swapping, throttling."""

from __future__ import annotations

import os
import re
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from agent.doctor.cgroups import own_groups
from agent.doctor.machine import Machine, read_number
from agent.doctor.processes import Busy, ProcessWatch
from agent.profile.sysfs import read_text

SAMPLE_S = 1.0
"""A hundred of the kernel's ticks; a neighbour that wakes less often than this is no neighbour."""

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_Number = TypeVar("_Number", int, float)


@dataclass(frozen=True)
class Counters:
    """The kernel's counters at one moment; ``None`` where it keeps none."""

    uptime_s: float | None
    busy_s: float | None
    """CPU time of everybody, on the CPUs we may use."""
    stolen_s: float | None
    """Time in which our CPUs wanted to run and the hypervisor ran something else."""
    own_s: float
    """CPU time of this process."""
    swapped_pages: int | None
    throttle_events: int | None
    """How often cores or packages slowed down for heat or power, since the start."""
    quota_pauses: int | None
    """How often our control groups were paused because their CPU time was used up."""


@dataclass(frozen=True)
class Interval:
    """Two readings of the counters, and who was busy between them."""

    before: Counters
    after: Counters
    processes: tuple[Busy, ...] = ()
    """The busiest first."""

    @property
    def seconds(self) -> float | None:
        """How far the readings are apart."""
        seconds = _difference(self.before.uptime_s, self.after.uptime_s)
        return seconds or None

    @property
    def foreign_cores(self) -> float | None:
        """Cores kept busy, on average, by everybody but this process."""
        busy = _difference(self.before.busy_s, self.after.busy_s)
        if busy is None or self.seconds is None:
            return None
        return max(0.0, busy - (self.after.own_s - self.before.own_s)) / self.seconds

    @property
    def stolen_cores(self) -> float | None:
        """Cores the hypervisor took away, on average."""
        stolen = _difference(self.before.stolen_s, self.after.stolen_s)
        return None if stolen is None or self.seconds is None else stolen / self.seconds

    @property
    def swapped_pages(self) -> int | None:
        """Pages moved between memory and swap."""
        return _difference(self.before.swapped_pages, self.after.swapped_pages)

    @property
    def throttle_events(self) -> int | None:
        """How often the CPU slowed down."""
        return _difference(self.before.throttle_events, self.after.throttle_events)

    @property
    def quota_pauses(self) -> int | None:
        """How often our control groups were paused."""
        return _difference(self.before.quota_pauses, self.after.quota_pauses)


def sample(
    machine: Machine, seconds: float = SAMPLE_S, sleep: Callable[[float], None] = time.sleep
) -> Interval:
    """Watch the machine for a while, doing nothing meanwhile."""
    watch = ProcessWatch()
    before = read_counters(machine, _own_cpu_s())
    sleep(seconds)
    after = read_counters(machine, _own_cpu_s())
    return Interval(before, after, watch.busy())


def read_counters(machine: Machine, own_s: float = 0.0) -> Counters:
    """Read all counters once.

    Args:
        machine: where to read them.
        own_s: CPU time this process has used.
    """
    uptime = (machine.text("/proc/uptime") or "").split()
    busy_s, stolen_s = _cpu_times(machine)
    return Counters(
        uptime_s=float(uptime[0]) if uptime else None,
        busy_s=busy_s,
        stolen_s=stolen_s,
        own_s=own_s,
        swapped_pages=_sum_named(machine.text("/proc/vmstat"), ("pswpin", "pswpout")),
        throttle_events=_throttle_events(machine),
        quota_pauses=_quota_pauses(machine),
    )


def _cpu_times(machine: Machine) -> tuple[float | None, float | None]:
    busy = stolen = 0
    found = False
    for line in (machine.text("/proc/stat") or "").splitlines():
        name, *fields = line.split()
        if re.fullmatch(r"cpu\d+", name) and int(name[3:]) in machine.cpus:
            # user nice system idle iowait irq softirq steal; guest time is within user.
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
            found = True
    return (busy * _TICK_S, stolen * _TICK_S) if found else (None, None)


def _throttle_events(machine: Machine) -> int | None:
    counts = [
        count
        for cpu in machine.cpus
        for kind in ("core", "package")
        if (
            count := read_number(
                machine.cpu_root / f"cpu{cpu}" / "thermal_throttle" / f"{kind}_throttle_count"
            )
        )
        is not None
    ]
    return sum(counts) if counts else None


def _quota_pauses(machine: Machine) -> int | None:
    texts = [read_text(group / "cpu.stat") for group in own_groups(machine, "cpu")]
    counts = [_sum_named(text, ("nr_throttled",)) for text in texts]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _sum_named(text: str | None, names: tuple[str, ...]) -> int | None:
    pairs = (line.split() for line in (text or "").splitlines())
    values = [int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names]
    return sum(values) if values else None


def _difference(before: _Number | None, after: _Number | None) -> _Number | None:
    return None if before is None or after is None else after - before


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
