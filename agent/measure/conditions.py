"""The state of the machine around a measurement, as far as it tells."""

from __future__ import annotations

import os
import re
import resource
import time
from pathlib import Path

import psutil

from tunefleet.trials import Conditions

# What drivers of CPU temperature sensors are called: Intel, AMD, ARM boards, at last ACPI.
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "acpitz")

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


class ForeignLoad:
    """How many cores everybody but this process kept busy since the object was made.

    Counts only cores this process may run on. Time that a hypervisor took away counts as busy.
    """

    def __init__(self) -> None:
        self._cores = os.sched_getaffinity(0)
        self._began = time.monotonic()
        self._own = _own_cpu_s()
        self._machine = _machine_cpu_s(self._cores)

    def cores(self) -> float | None:
        """Return the average number of busy cores, or ``None`` where the kernel does not tell."""
        machine = _machine_cpu_s(self._cores)
        if machine is None or self._machine is None:
            return None
        elapsed = time.monotonic() - self._began
        # The kernel counts in ticks: a core's count may be one off at either end.
        uncertainty = _TICK_S * len(self._cores)
        foreign = (machine - self._machine) - (_own_cpu_s() - self._own) - uncertainty
        return max(0.0, foreign) / max(elapsed, _TICK_S)


def _own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _machine_cpu_s(cores: set[int]) -> float | None:
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    busy = 0
    for line in lines:
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdecimal() and int(name[3:]) in cores:
            # user nice system idle iowait irq softirq steal; guest time is within user.
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy * _TICK_S
