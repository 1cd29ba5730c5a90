"""Captured-looking /proc and /sys trees of machines that tests do not run on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write files by their path below ``root`` and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


def cache_files(cpu: int, index: int, level: int, kind: str, size: str) -> dict[str, str]:
    """Return one cache's files in sysfs."""
    folder = f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
    return {
        f"{folder}/level": str(level),
        f"{folder}/type": kind,
        f"{folder}/size": size,
        f"{folder}/coherency_line_size": "64",
    }


def _arm_processor(number: int, features: str, part: str) -> str:
    return f"""processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3
"""


def raspberry_pi_4() -> dict[str, str]:
    """Return the files of a Raspberry Pi 4 with 4 GB: four Cortex-A72 and no L3."""
    processors = [_arm_processor(n, "fp asimd evtstrm crc32 cpuid", "0xd08") for n in range(4)]
    board = "Revision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4"
    files = {
        "proc/cpuinfo": "\n".join([*processors, board]),
        "proc/meminfo": "MemTotal:        3884396 kB\nMemFree:          123456 kB",
        "proc/self/status": "Name:\tpython3\nCpus_allowed:\tf\nCpus_allowed_list:\t0-3",
        "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-v8",
        "sys/devices/system/cpu/online": "0-3",
        "etc/os-release": 'ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"',
    }
    for cpu in range(4):
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        files |= cache_files(cpu, 0, 1, "Data", "32K")
        files |= cache_files(cpu, 1, 1, "Instruction", "48K")
        files |= cache_files(cpu, 2, 2, "Unified", "1024K")
        files[f"{folder}/cpufreq/cpuinfo_max_freq"] = "1800000"
        files[f"{folder}/topology/core_cpus_list"] = str(cpu)
    return files


def rock_5() -> dict[str, str]:
    """Return the files of an RK3588 board: four Cortex-A55, then four Cortex-A76."""
    features = "fp asimd aes crc32 atomics fphp asimdhp asimddp"
    parts = ["0xd05"] * 4 + ["0xd0b"] * 4
    files = {
        "proc/cpuinfo": "\n".join(
            _arm_processor(n, features, part) for n, part in enumerate(parts)
        ),
        "sys/devices/system/cpu/online": "0-7",
    }
    for cpu in range(8):
        big = cpu >= 4
        folder = f"sys/devices/system/cpu/cpu{cpu}"
        files |= cache_files(cpu, 0, 1, "Data", "64K" if big else "32K")
        files |= cache_files(cpu, 2, 2, "Unified", "512K" if big else "128K")
        files |= cache_files(cpu, 3, 3, "Unified", "3072K")
        files[f"{folder}/cpu_capacity"] = "1024" if big else "414"
        files[f"{folder}/cpufreq/cpuinfo_max_freq"] = "2400000" if big else "1800000"
    return files


def x86_virtual_machine() -> dict[str, str]:
    """Return the files of a virtual machine: 4 CPUs on 2 cores, caches told, clock not."""
    flags = (
        "fpu sse sse2 ssse3 fma sse4_1 sse4_2 smap smep avx f16c avx2 avx512f avx512dq avx512bw "
        "avx512vl avx512_vnni amx_tile avx_vnni hypervisor"
    )
    processors = [
        f"""processor\t: {cpu}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R)  Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: 2699.998
cache size\t: 107520 KB
physical id\t: 0
core id\t\t: {cpu // 2}
flags\t\t: {flags}
"""
        for cpu in range(4)
    ]
    files = {
        "proc/cpuinfo": "\n".join(processors),
        "proc/meminfo": "MemTotal:       16370000 kB",
        # The mask names every CPU the kernel could have, not those that are there.
        "proc/self/status": "Cpus_allowed_list:\t0-127",
        "sys/devices/system/cpu/online": "0-3",
    }
    for cpu in range(4):
        files |= cache_files(cpu, 0, 1, "Data", "48K")
        files |= cache_files(cpu, 1, 1, "Instruction", "32K")
        files |= cache_files(cpu, 2, 2, "Unified", "2048K")
        files |= cache_files(cpu, 3, 3, "Unified", "105M")
        siblings = "0-1" if cpu < 2 else "2-3"
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = siblings
    return files
