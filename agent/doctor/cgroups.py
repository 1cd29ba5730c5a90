"""The control groups this process is in, versions 1 and 2, and what they limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from agent.doctor.machine import Machine, read_number
from agent.profile.sysfs import read_text

_MOUNT = "/sys/fs/cgroup"
# Version 1 writes "no limit" as the largest number of pages.
_NO_LIMIT_BYTES = 2**60


def own_groups(machine: Machine, controller: str) -> list[Path]:
    """Return the folders of our group and of those it lies in; none where there are none.

    Args:
        machine: where to look.
        controller: ``cpu`` or ``memory``.
    """
    for line in (machine.text("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        for mount in map(machine.path, _mounts(controllers, controller)):
            if mount.is_dir():
                return list(_upwards(mount, name))
    return []


def cpu_quota(machine: Machine) -> float | None:
    """Return how many cores' time our groups may use, ``None`` without a limit."""
    quotas = [quota for group in own_groups(machine, "cpu") if (quota := _quota(group))]
    return min(quotas, default=None)


def memory_left(machine: Machine) -> int | None:
    """Return how many bytes our groups may still use, ``None`` without a limit."""
    left: list[int] = []
    for group in own_groups(machine, "memory"):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, used = read_number(group / limit_name), read_number(group / used_name)
            if limit is not None and used is not None and limit < _NO_LIMIT_BYTES:
                left.append(max(0, limit - used))
    return min(left, default=None)


def _mounts(controllers: str, wanted: str) -> list[str]:
    """Return where a controller's tree may be mounted, given the controllers of one tree.

    Version 2 has a single tree, of no named controllers. Beside trees of version 1 it limits
    nothing that we ask for.
    """
    if not controllers:
        return [_MOUNT]
    if wanted not in controllers.split(","):
        return []
    return [f"{_MOUNT}/{controllers}", f"{_MOUNT}/{wanted}"]


def _upwards(mount: Path, name: str) -> Iterator[Path]:
    group = mount / name.lstrip("/")
    # Within a container the name may be that on the host, which does not exist here.
    while group != mount and mount in group.parents:
        if group.is_dir():
            yield group
        group = group.parent
    yield mount


def _quota(group: Path) -> float | None:
    text = read_text(group / "cpu.max")
    if text is not None:
        quota, _, period = text.partition(" ")
        return int(quota) / int(period or 100_000) if quota.isdecimal() else None
    quota_us = read_number(group / "cpu.cfs_quota_us")
    period_us = read_number(group / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and quota_us > 0 and period_us else None
