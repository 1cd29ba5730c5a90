"""Corpora of TenSet's records, whose programs are sequences of schedule steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.feature_sets import STEPS
from coordinator.costmodel.steps import encode
from coordinator.dataset.schema import invalid
from coordinator.dataset.tenset import BrokenLine, Damage, TensetRow, find_records, read_tenset
from coordinator.dataset.tenset_networks import find_networks
from coordinator.study.corpus import Corpus, numbered
from tunefleet.devices import DeviceProfile
from tunefleet.errors import TuneFleetError
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.machine_lock import MachineLock

Progress: TypeAlias = Callable[[float, str], None]

_LINES_AT_ONCE = 256
"""Read in some 50 ms, for which whatever is to be timed on this machine waits."""


def load_tenset(
    place: Path,
    *,
    profiles: Mapping[str, DeviceProfile] | None = None,
    per_task: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Corpus, Damage]:
    """Read a sample of TenSet's records; see :mod:`coordinator.dataset.tenset`.

    Every task (workload, target and device) is sampled by itself, uniformly, so that memory grows
    with the number of tasks and not with that of records. 128 programs of each of TenSet's 13,848
    tasks are 1.8 million of some 25 steps, 10 GB; those of one device 1.6 GB; loading takes twice
    that. Nothing is read while something is timed on this machine: its lock must not be held
    already.

    Args:
        place: TenSet's ``dataset`` folder, its ``measure_records``, a device's folder or one file.
        profiles: by the name of a device's folder, what that device is. TenSet does not tell: the
            hardware of other devices is unknown.
        per_task: programs at most; a task keeps all where it has fewer.
        seed: of the sample.
        progress: told the share read and what is being done.

    Returns:
        The corpus, with schedule steps in place of stores and networks as sources where
        ``network_info`` lies beside the records, and what could not be read.

    Raises:
        TuneFleetError: DATASET_INVALID, there are no files or no line of them can be used.
    """
    damage = Damage()
    samples = _Samples(per_task, seed, Devices(profiles or {}))
    total = sum(path.stat().st_size for path in find_records(place))
    for _ in offered(read_tenset(place, damage), samples.offer):
        if progress is not None:
            read = damage.bytes_read / max(1, total)
            progress(min(1.0, read), f"reading records, {damage.lines} so far")
    kept = samples.kept()
    if not kept:
        raise nothing_usable(place, damage)
    return tenset_corpus(place.name, kept, find_networks(place)), damage


def nothing_usable(place: Path, damage: Damage) -> TuneFleetError:
    """Make the error of files that hold nothing, with the first of what is wrong."""
    first = damage.named[0] if damage.named else None
    why = f"{first.file}, line {first.line}: {first.why}" if first else "the files are empty"
    return invalid(f"{place} has no record that can be used; {why}")


def offered(
    lines: Iterator[TensetRow | BrokenLine], take: Callable[[TensetRow], None]
) -> Iterator[None]:
    """Read lines in small parts, and hand over what they hold.

    Nothing is read while something is timed on this machine: its lock must not be held already.

    Args:
        lines: as :func:`coordinator.dataset.tenset.read_tenset` gives them.
        take: is given each row that can be used, while the machine's lock is held.

    Yields:
        After each part, when the lock is free.
    """
    lock = MachineLock()
    more = True
    while more:
        with lock.busy():
            some = list(islice(lines, _LINES_AT_ONCE))
            for line in some:
                if not isinstance(line, BrokenLine):
                    take(line)
        more = bool(some)
        yield


def tenset_corpus(
    name: str,
    kept: Sequence[tuple[str, TrainingRow]],
    networks: Mapping[str, Mapping[str, int]],
) -> Corpus:
    """Make a corpus of records.

    Args:
        name: of the file or folder they come from.
        kept: where each stood, and what it is as :func:`training_row` gives it.
        networks: by workload, as :func:`coordinator.dataset.tenset_networks.find_networks` finds
            them.
    """
    rows = [row for _, row in kept]
    workloads, workload = numbered(row.workload for row in rows)
    targets, target = numbered(row.target for row in rows)
    return Corpus(
        name=name,
        arrays=to_arrays(rows, features=STEPS),
        workloads=workloads,
        workload=workload,
        targets=targets,
        target=target,
        sources=tuple(networks.get(each, {}) for each in workloads),
        trial_ids=tuple(where for where, _ in kept),
    )


class Devices:
    """Hardware vectors of devices by their folders' names, all NaN where nothing is known."""

    def __init__(self, profiles: Mapping[str, DeviceProfile]) -> None:
        self._profiles = profiles
        self._vectors: dict[tuple[str, str], list[float]] = {}

    def vector(self, device: str, target: str) -> list[float]:
        """Return what is known of a device when it runs what was built for a target."""
        if (device, target) not in self._vectors:
            profile = self._profiles.get(device)
            self._vectors[device, target] = (
                [math.nan] * len(HARDWARE_FEATURES)
                if profile is None
                else hardware_vector(profile, target)
            )
        return self._vectors[device, target]


class _Samples:
    """Uniformly drawn rows of each task."""

    def __init__(self, per_task: int, seed: int, devices: Devices) -> None:
        self._per_task = per_task
        self._seed = seed
        self._devices = devices
        self._tasks: dict[tuple[str, str, str], _Sample] = {}

    def offer(self, row: TensetRow) -> None:
        """Keep a row, perhaps, and perhaps no other for it."""
        key = (row.workload, row.target, row.device)
        if key not in self._tasks:
            # Of its own for each task: what is drawn of one does not depend on the others.
            drawn_by = random.Random(f"{self._seed}/{'/'.join(key)}")
            self._tasks[key] = _Sample(self._per_task, drawn_by)
        slot = self._tasks[key].slot()
        if slot is not None:
            self._tasks[key].put(slot, row.place, training_row(row, self._devices))

    def kept(self) -> list[tuple[str, TrainingRow]]:
        """Return what was kept and where it stood, task by task in the order of the lines."""
        return [found for task in self._tasks.values() for found in task.in_order()]


class _Sample:
    """Uniformly drawn rows of one task: algorithm R (Vitter, 1985)."""

    def __init__(self, most: int, drawn_by: random.Random) -> None:
        self._most = most
        self._random = drawn_by
        self._offered = 0
        self._kept: list[tuple[int, str, TrainingRow]] = []

    def slot(self) -> int | None:
        """Return where the next row is to be put, ``None`` where it is not drawn."""
        number = self._offered
        self._offered += 1
        slot = number if number < self._most else self._random.randrange(number + 1)
        return slot if slot < self._most else None

    def put(self, slot: int, place: str, row: TrainingRow) -> None:
        """Keep a row in the place of the one before."""
        self._kept[slot : slot + 1] = [(self._offered, place, row)]

    def in_order(self) -> list[tuple[str, TrainingRow]]:
        """Return what was kept and where it stood, as it came."""
        return [(place, row) for _, place, row in sorted(self._kept, key=itemgetter(0))]


def training_row(row: TensetRow, devices: Devices) -> TrainingRow:
    """Describe a record by its schedule steps."""
    block = encode(row.steps())
    return TrainingRow(
        workload=row.workload,
        target=row.target,
        device_fingerprint=row.device,
        hardware=devices.vector(row.device, row.target),
        candidate=row.candidate(),
        stores=len(block),
        features=block.tobytes(),
        latency_s=row.latency_s,
        noise=row.noise,
        verdict=row.verdict,
    )
