"""Corpora whose programs are sequences of schedule steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

import numpy as np

from coordinator.costmodel.arrays import Floats, RowArrays, to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.feature_sets import STEPS
from coordinator.costmodel.steps import STEP_FEATURES, encode
from coordinator.dataset.reading import Refused, find_parts, open_trials, read_all
from coordinator.dataset.schema import invalid
from coordinator.dataset.tenset import BrokenLine, Damage, TensetRow, find_records, read_tenset
from coordinator.dataset.tenset_networks import find_networks
from coordinator.state.trial_records import TrialRecord
from coordinator.study.corpus import Corpus, gather, numbered
from tunefleet.devices import DeviceProfile
from tunefleet.features import HARDWARE_FEATURES, hardware_vector
from tunefleet.machine_lock import MachineLock
from tunefleet.schedules.trace import trace_steps

Progress: TypeAlias = Callable[[float, str], None]

_LINES_AT_ONCE = 256
"""Read in some 50 ms, for which whatever is to be timed on this machine waits."""


def step_arrays(place: Path, corpus: Corpus, progress: Progress | None = None) -> RowArrays:
    """Read the schedule steps of a dataset's trials.

    Nothing is read while something is timed on this machine: its lock must not be held already.

    Args:
        place: where the corpus was loaded from.
        corpus: of that dataset, whole or a part of it.
        progress: told the share read and what is being done.

    Returns:
        The corpus's arrays, row by row, with schedule steps in place of stores: ``features`` are
        [S, STEP_FEATURES] and ``stores`` counts steps. All else is the same.

    Raises:
        TuneFleetError: DATASET_INVALID, a trial is missing or its trace cannot be read.
    """
    wanted = set(corpus.trial_ids)
    blocks: dict[str, Floats] = {}
    lock = MachineLock()
    tables = [open_trials(path) for path in find_parts(place).trials]
    for item in read_all(tables, progress, features=False):
        if isinstance(item, Refused):
            continue
        trial = item[0].trial
        if trial.trial_id in wanted and trial.trial_id not in blocks:
            with lock.busy():
                blocks[trial.trial_id] = _encoded(trial.trial_id, trial.trace)
    missing = len(wanted) - len(blocks)
    if missing:
        raise invalid(f"{place} lacks {missing} trials of the corpus {corpus.name}")
    return _with_steps(corpus.arrays, [blocks[trial_id] for trial_id in corpus.trial_ids])


def load_steps(
    place: Path,
    progress: Progress | None = None,
    refused: Callable[[Refused], None] | None = None,
) -> Corpus:
    """Read a dataset, its programs described by the steps of their traces.

    As :func:`coordinator.study.corpus.load_corpus`, but trials need no features, and those whose
    traces cannot be read are told of and left out.
    """
    lock = MachineLock()

    def describe(record: TrialRecord) -> tuple[int, bytes]:
        with lock.busy():
            block = encode(trace_steps(record.trial.trace))
        return len(block), block.astype("<f4", copy=False).tobytes()

    return gather(place, STEPS, describe, progress, refused)


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
    samples = _Samples(per_task, seed, _Devices(profiles or {}))
    total = sum(path.stat().st_size for path in find_records(place))
    lock, lines = MachineLock(), read_tenset(place, damage)
    more = True
    while more:
        with lock.busy():
            some = list(islice(lines, _LINES_AT_ONCE))
            for line in some:
                if not isinstance(line, BrokenLine):
                    samples.offer(line)
        more = bool(some)
        if progress is not None:
            read = damage.bytes_read / max(1, total)
            progress(min(1.0, read), f"reading records, {damage.lines} so far")
    kept = samples.kept()
    if not kept:
        first = damage.named[0] if damage.named else None
        why = f"{first.file}, line {first.line}: {first.why}" if first else "the files are empty"
        raise invalid(f"{place} has no record that can be used; {why}")
    rows = [row for _, row in kept]
    workloads, workload = numbered(row.workload for row in rows)
    targets, target = numbered(row.target for row in rows)
    networks = find_networks(place)
    corpus = Corpus(
        name=place.name,
        arrays=to_arrays(rows, features=STEPS),
        workloads=workloads,
        workload=workload,
        targets=targets,
        target=target,
        sources=tuple(networks.get(name, {}) for name in workloads),
        trial_ids=tuple(name for name, _ in kept),
    )
    return corpus, damage


class _Devices:
    """Hardware vectors of devices by their folders' names, all NaN where nothing is known."""

    def __init__(self, profiles: Mapping[str, DeviceProfile]) -> None:
        self._profiles = profiles
        self._vectors: dict[tuple[str, str], list[float]] = {}

    def vector(self, device: str, target: str) -> list[float]:
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

    def __init__(self, per_task: int, seed: int, devices: _Devices) -> None:
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
            self._tasks[key].put(slot, row.place, _training_row(row, self._devices))

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


def _training_row(row: TensetRow, devices: _Devices) -> TrainingRow:
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


def _encoded(trial_id: str, trace: str) -> Floats:
    try:
        return encode(trace_steps(trace))
    except ValueError as e:
        raise invalid(f"trial {trial_id}: {e}") from e


def _with_steps(arrays: RowArrays, blocks: Sequence[Floats]) -> RowArrays:
    counts = np.array([len(block) for block in blocks], np.int64)
    return replace(
        arrays,
        features=np.concatenate([np.zeros((0, STEP_FEATURES), np.float32), *blocks]),
        first_store=np.cumsum(counts) - counts,
        stores=counts,
        scheduled=False,
    )
