"""What a device is, read from the kernel's files: no TVM, no NumPy, a few milliseconds."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from agent.profile import cpuinfo, sysfs
from tunefleet.devices import DeviceProfile

_DISTRIBUTIONS = ("apache-tvm", "apache-tvm-ffi", "numpy", "onnxruntime", "tunefleet")


def read_static_profile(root: Path = Path("/"), machine: str | None = None) -> DeviceProfile:
    """Describe the machine without measuring anything.

    Cache sizes are those of one instance, as one core sees it: an L3 shared by eight cores is
    counted once, and of four private L2s one is given. On machines with several kinds of cores,
    caches and clock are those of the most capable kind. What the machine does not tell (in virtual
    machines often the clock, on ARM boards often the caches) is ``None``.

    Args:
        root: folder that holds ``proc``, ``sys`` and ``etc``. The libc and the versions are those
            of this process, whatever the root.
        machine: the architecture, as ``uname -m`` gives it; by default this machine's.

    Returns:
        The profile, with ``llvm_cpu`` and ``measured`` still ``None``.
    """
    proc, cpu_root = root / "proc", root / "sys/devices/system/cpu"
    processors = cpuinfo.parse_cpuinfo(sysfs.read_text(proc / "cpuinfo") or "")
    cpus = usable_cpus(proc, cpu_root, len(processors))
    main_cpu = sysfs.main_cpu(cpu_root, cpus)
    caches = sysfs.read_caches(cpu_root, main_cpu)
    isa = cpuinfo.isa_features(processors)
    usable = [p for p in processors if p["processor"] in {str(cpu) for cpu in cpus}]
    return DeviceProfile(
        arch=machine or platform.machine(),
        cpu_model=cpuinfo.cpu_model(processors),
        isa_features=isa,
        simd_bits=_simd_bits(isa, proc),
        logical_cores=len(cpus),
        physical_cores=sysfs.count_physical_cores(cpu_root, cpus) or cpuinfo.physical_cores(usable),
        l1d_bytes=caches.l1d_bytes,
        l2_bytes=caches.l2_bytes,
        l3_bytes=caches.l3_bytes,
        cache_line_bytes=caches.line_bytes,
        clock_max_mhz=sysfs.read_clock_max_mhz(cpu_root, main_cpu),
        memory_bytes=_memory_bytes(proc),
        os_name=_os_name(root),
        kernel=sysfs.read_text(proc / "sys/kernel/osrelease"),
        libc=_libc(),
        versions=_versions(),
    )


def usable_cpus(proc: Path, cpu_root: Path, processors: int) -> frozenset[int]:
    """Return the CPUs of this process's affinity mask that exist.

    The mask may name CPUs that are possible but not there, hence the second list.

    Args:
        proc: the folder ``/proc``.
        cpu_root: the folder ``/sys/devices/system/cpu``.
        processors: how many ``/proc/cpuinfo`` lists, for kernels that list none in sysfs.
    """
    online = _cpu_list(sysfs.read_text(cpu_root / "online")) or frozenset(range(processors))
    allowed: frozenset[int] = frozenset()
    for line in (sysfs.read_text(proc / "self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            allowed = _cpu_list(value)
    return (online & allowed) or online or frozenset(range(os.cpu_count() or 1))


def _cpu_list(text: str | None) -> frozenset[int]:
    try:
        return sysfs.parse_cpu_list(text) if text else frozenset()
    except ValueError:
        return frozenset()


def _simd_bits(isa: tuple[str, ...], proc: Path) -> int | None:
    if "sve" in isa:
        # The length of a scalable register is in no flag; the kernel tells the default in bytes.
        length = sysfs.read_text(proc / "sys/abi/sve_default_vector_length")
        return int(length) * 8 if length is not None and length.isdecimal() else None
    for bits, flags in ((512, {"avx512f"}), (256, {"avx"}), (128, {"sse2", "asimd", "neon"})):
        if flags.intersection(isa):
            return bits
    return None


def _memory_bytes(proc: Path) -> int | None:
    for line in (sysfs.read_text(proc / "meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        digits = value.removesuffix("kB").strip()
        if name == "MemTotal" and digits.isdecimal():
            return int(digits) * 1024
    return None


def _os_name(root: Path) -> str | None:
    for place in ("etc/os-release", "usr/lib/os-release"):
        for line in (sysfs.read_text(root / place) or "").splitlines():
            name, _, value = line.partition("=")
            if name == "PRETTY_NAME":
                return value.strip().strip("\"'") or None
    return None


def _libc() -> str | None:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):
        return None


def _versions() -> Mapping[str, str]:
    versions = {"python": platform.python_version()}
    for distribution in _DISTRIBUTIONS:
        try:
            versions[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return versions
