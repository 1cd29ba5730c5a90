"""Trees of machines that a doctor looks at, laid out as the kernel does, links included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from profile_machines import raspberry_pi_4, write_tree, x86_virtual_machine

from agent.doctor.machine import Machine

CPU = "sys/devices/system/cpu"


def lay_out(
    root: Path, *parts: Mapping[str, str], policies: Mapping[int, Iterable[int]] | None = None
) -> Machine:
    """Write files, later parts over earlier ones, and link each CPU to its frequency policy.

    Args:
        root: an empty folder.
        parts: text by path.
        policies: the CPUs of each policy.
    """
    for part in parts:
        write_tree(root, part)
    for policy, cpus in (policies or {}).items():
        for cpu in cpus:
            folder = root / CPU / f"cpu{cpu}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "cpufreq").symlink_to(f"../cpufreq/policy{policy}")
    return Machine(root)


def policy(number: int, **files: str) -> dict[str, str]:
    """Return the files of one frequency policy: a governor powersave of three, 0.8 to 3 GHz."""
    every = {
        "scaling_governor": "powersave",
        "scaling_available_governors": "performance ondemand powersave",
        "scaling_driver": "acpi-cpufreq",
        "scaling_min_freq": "800000",
        "scaling_max_freq": "3000000",
        "cpuinfo_max_freq": "3000000",
        "scaling_cur_freq": "2950000",
        **files,
    }
    return {f"{CPU}/cpufreq/policy{number}/{name}": text for name, text in every.items()}


def desktop(root: Path, *parts: Mapping[str, str], **files: str) -> Machine:
    """Lay out a PC with four CPUs, each of its own policy, with the given policy files."""
    cpus = {f"{CPU}/online": "0-3", "proc/cpuinfo": "processor\t: 0\nflags\t: fpu avx2\n"}
    every = [policy(number, **files) for number in range(4)]
    return lay_out(root, cpus, *every, *parts, policies={n: [n] for n in range(4)})


def board(root: Path, *parts: Mapping[str, str], **files: str) -> Machine:
    """Lay out a Raspberry Pi 4, whose four cores share a policy."""
    pi = {name: text for name, text in raspberry_pi_4().items() if "/cpufreq/" not in name}
    return lay_out(root, pi, policy(0, **files), *parts, policies={0: range(4)})


def virtual(root: Path, *parts: Mapping[str, str]) -> Machine:
    """Lay out a virtual machine that tells as little as most do."""
    return lay_out(root, x86_virtual_machine(), *parts)
