"""The state of the machine around a measurement, as far as it tells."""

from __future__ import annotations

import os
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from tunefleet.trials import Conditions

# What drivers of CPU temperature sensors are called: Intel, AMD, ARM boards, at last ACPI.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz")

_THREADS = Path("/proc/self/task")

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def read_conditions() -> Conditions:
    """Read clock (of the fastest core we may use), temperature, load and available memory."""
    try:
        memory = psutil.virtual_memory().available
    except OSError:
        memory = None
    return Conditions(
        clock_mhz=_clock_mhz(),
        temperature_c=_temperature_c(),
        load_average=os.getloadavg()[0],
        memory_available_bytes=memory,
    )


def _clock_mhz() -> float | None:
    clocks: list[float] = []
    for core in os.sched_getaffinity(0):
        path = Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq")
        try:
            clocks.append(int(path.read_text()) / 1000)
        except (OSError, ValueError):
            continue
    if not clocks:
        try:
            info = Path("/proc/cpuinfo").read_text()
        except OSError:
            return None
        clocks = [float(mhz) for mhz in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.MULTILINE)]
    return max(clocks, default=None)


def _temperature_c() -> float | None:
    sensors = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
    for name in _CPU_SENSORS:
        readings = [reading.current for reading in sensors.get(name, [])]
        if readings:
            return float(max(readings))
    return None


def waited_s() -> float:
    """Return the seconds that all threads of this process have waited for a core so far.

    Unlike the load of others, which the kernel counts in ticks, this is exact, and says what
    matters: a thread stood ready and did not run. 0 where the kernel does not tell.
    """
    waited = 0
    for thread in _THREADS.iterdir() if _THREADS.exists() else ():
        try:
            waited += int((thread / "schedstat").read_bytes().split()[1])
        except (OSError, IndexError, ValueError):
            continue
    return waited / 1e9


@dataclass(frozen=True)
class Load:
    """What kept a machine's cores from this process, on average over some time."""

    foreign_cores: float
    """Cores that other processes kept busy, with time that a hypervisor took away."""
    steal_cores: float
    """The latter alone."""


class ForeignLoad:
    """What everybody but this process made of the machine's cores since the object was made.

    Counts all cores, not only those this process may run on: others share caches and memory, and
    sometimes the execution units.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        """Begin counting; ``root`` is the folder with ``proc``."""
        self._stat = root / "proc/stat"
        self._began = time.monotonic()
        self._own = _own_cpu_s()
        self._machine = _machine_cpu_s(self._stat)

    def read(self) -> Load | None:
        """Return the load so far, or ``None`` where the kernel does not tell."""
        machine = _machine_cpu_s(self._stat)
        if machine is None or self._machine is None:
            return None
        elapsed = max(time.monotonic() - self._began, _TICK_S)
        busy, steal = machine.busy_s - self._machine.busy_s, machine.steal_s - self._machine.steal_s
        # The kernel counts in ticks: a core's count may be one off at either end.
        uncertainty = _TICK_S * machine.cores
        foreign = max(0.0, busy - (_own_cpu_s() - self._own) - uncertainty)
        return Load(foreign / elapsed, max(0.0, steal) / elapsed)


@dataclass(frozen=True)
class _MachineTime:
    cores: int
    busy_s: float
    steal_s: float


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _machine_cpu_s(stat: Path) -> _MachineTime | None:
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    cores = busy = stolen = 0
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal():
            # user nice system idle iowait irq softirq steal; guest time is within user.
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            cores += 1
            busy += user + nice + system + irq + softirq + steal
            stolen += steal
    return _MachineTime(cores, busy * _TICK_S, stolen * _TICK_S)
