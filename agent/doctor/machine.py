"""The machine as its kernel describes it, read below a root that tests may put anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agent.profile.cpuinfo import Processor, parse_cpuinfo
from agent.profile.static import usable_cpus
from agent.profile.sysfs import parse_cpu_list, read_text

# Names in DMI's product_name that no physical machine has.
_VIRTUAL_PRODUCTS = re.compile(
    r"KVM|QEMU|VMware|VirtualBox|^Virtual Machine$|^HVM domU$|Google Compute Engine|BHYVE"
)


@dataclass(frozen=True)
class Machine:
    """Files below ``proc``, ``sys``, ``run`` and ``etc`` of one root."""

    root: Path = field(default_factory=lambda: Path("/"))

    def path(self, name: str) -> Path:
        """Return where a file lies, given its absolute name on the machine itself."""
        return self.root / name.lstrip("/")

    def shown(self, path: Path) -> str:
        """Return a file's name on the machine itself, its symbolic links followed."""
        return f"/{path.resolve().relative_to(self.root.resolve())}"

    def text(self, name: str) -> str | None:
        """Return a small file's text, ``None`` if it is unreadable or empty."""
        return read_text(self.path(name))

    def number(self, name: str) -> int | None:
        """Return the integer that a file holds, ``None`` if there is none."""
        return read_number(self.path(name))

    def cpu_list(self, name: str) -> frozenset[int]:
        """Return the CPUs that a file lists, none if it is unreadable."""
        try:
            return parse_cpu_list(self.text(name) or "")
        except ValueError:
            return frozenset()

    @cached_property
    def processors(self) -> list[Processor]:
        """The paragraphs of ``/proc/cpuinfo``."""
        return parse_cpuinfo(self.text("/proc/cpuinfo") or "")

    @cached_property
    def cpus(self) -> tuple[int, ...]:
        """The CPUs an agent started like this process may use, ascending."""
        return tuple(sorted(usable_cpus(self.path("/proc"), self.cpu_root, len(self.processors))))

    @property
    def cpu_root(self) -> Path:
        """The folder with one folder a CPU."""
        return self.path("/sys/devices/system/cpu")

    def frequency_policies(self) -> list[Path]:
        """Return the frequency settings of our CPUs, each once; several CPUs may share one."""
        folders = (self.cpu_root / f"cpu{cpu}" / "cpufreq" for cpu in self.cpus)
        return sorted({folder.resolve() for folder in folders if folder.is_dir()}, key=_in_order)

    @cached_property
    def virtual(self) -> bool:
        """Whether it says that it is a virtual machine; some do not say so."""
        if any("hypervisor" in each.get("flags", "").split() for each in self.processors):
            return True
        if self.path("/proc/device-tree/hypervisor").exists():
            return True
        product = self.text("/sys/class/dmi/id/product_name") or ""
        return _VIRTUAL_PRODUCTS.search(product) is not None

    def untold(self, what: str) -> str:
        """Say that the machine does not tell something, and why if that is known."""
        if self.virtual:
            return f"a virtual machine; it does not tell {what}"
        return f"this machine's kernel does not tell {what}"


def read_number(path: Path) -> int | None:
    """Return the integer that a file holds, ``None`` if there is none."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def nearest(path: Path) -> Path:
    """Return a path, or of the folders it lies in the nearest one that can be seen."""
    try:
        path.stat()
    except OSError:
        return nearest(path.parent) if path != path.parent else path
    return path


def format_cpus(cpus: tuple[int, ...]) -> str:
    """Write CPUs as the kernel and ``taskset -c`` do: ``0-3,8``."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def _in_order(path: Path) -> tuple[int, str]:
    digits = re.findall(r"\d+", str(path))
    return int(digits[-1]) if digits else 0, str(path)
