"""What ``/sys/devices/system/cpu`` tells of cores, caches and clocks. It may tell nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclass(frozen=True)
class Caches:
    """Bytes of one instance of each level, as one core sees it, and of a line."""

    l1d_bytes: int | None = None
    l2_bytes: int | None = None
    l3_bytes: int | None = None
    line_bytes: int | None = None


def read_text(path: Path) -> str | None:
    """Return a small file's text without surrounding space; ``None`` if unreadable or empty."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def parse_cpu_list(text: str) -> frozenset[int]:
    """Read the kernel's list format, ``0-3,8``.

    Raises:
        ValueError: the text is not such a list.
    """
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def main_cpu(cpu_root: Path, cpus: Iterable[int]) -> int:
    """Choose the core that describes the machine: the first of the most capable ones."""
    return min(cpus, key=lambda cpu: (-_capacity(cpu_root, cpu), cpu))


def read_caches(cpu_root: Path, cpu: int) -> Caches:
    """Read the data caches of one core; a level that is not listed or has no size is ``None``."""
    sizes: dict[int, int] = {}
    line_bytes: int | None = None
    for index in sorted(cpu_root.glob(f"cpu{cpu}/cache/index[0-9]*")):
        if read_text(index / "type") not in {"Data", "Unified"}:
            continue
        level, size = _number(index / "level"), _number(index / "size")
        if level is not None and size is not None:
            sizes[level] = size
        line_bytes = line_bytes or _number(index / "coherency_line_size")
    return Caches(sizes.get(1), sizes.get(2), sizes.get(3), line_bytes)


def read_clock_max_mhz(cpu_root: Path, cpu: int) -> float | None:
    """Read the highest clock the frequency driver knows, in MHz."""
    khz = _number(cpu_root / f"cpu{cpu}" / "cpufreq" / "cpuinfo_max_freq")
    return None if khz is None else khz / 1000


def count_physical_cores(cpu_root: Path, cpus: Iterable[int]) -> int | None:
    """Count the cores behind these logical CPUs, or ``None`` where one's siblings are unknown."""
    groups: set[str] = set()
    for cpu in cpus:
        topology = cpu_root / f"cpu{cpu}" / "topology"
        # Kernels before 5.2 have only the older name.
        siblings = read_text(topology / "core_cpus_list") or read_text(
            topology / "thread_siblings_list"
        )
        if siblings is None:
            return None
        groups.add(siblings)
    return len(groups) or None


def _capacity(cpu_root: Path, cpu: int) -> int:
    return _number(cpu_root / f"cpu{cpu}" / "cpu_capacity") or 0


def _number(path: Path) -> int | None:
    """Read a positive number such as ``64`` or ``32K``; zero and nonsense are unknown."""
    text = read_text(path)
    if text is None:
        return None
    unit = _UNITS.get(text[-1])
    digits = text if unit is None else text[:-1]
    return (int(digits) * (unit or 1) or None) if digits.isdecimal() else None
