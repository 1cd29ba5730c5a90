"""A dataset as arrays, with what splits and pruning must know of its trials."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays, to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.dataset.reading import (
    Refused,
    find_parts,
    open_trials,
    read_trials,
    read_workloads,
)
from coordinator.dataset.schema import invalid
from coordinator.state.trial_records import TrialRecord
from tunefleet.devices import DeviceProfile
from tunefleet.families import FAMILIES
from tunefleet.features import hardware_vector
from tunefleet.trials import Verdict


@dataclass(frozen=True)
class Corpus:
    """N trials, by column."""

    name: str
    """Of the file or folder they come from."""
    arrays: RowArrays
    workloads: tuple[str, ...]
    """Structural hashes."""
    workload: Indices
    """[N], index into ``workloads``: structurally equal workloads have one number."""
    targets: tuple[str, ...]
    """Canonical targets."""
    target: Indices
    """[N], index into ``targets``."""
    sources: tuple[Mapping[str, int], ...]
    """Of each workload: the networks and families it comes from, with its weight in each."""
    trial_ids: tuple[str, ...]
    """[N]: a dataset is cut down by these."""

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the sources that are whole networks, sorted."""
        named = {source for sources in self.sources for source in sources}
        return tuple(sorted(named - FAMILIES.keys()))

    def measured(self) -> NDArray[np.bool_]:
        """Return bool [N]: which rows have a latency."""
        return ~np.isnan(self.arrays.log_latency)

    def take(self, rows: Indices) -> Corpus:
        """Return the corpus of some rows only; workloads and targets keep their numbers."""
        return replace(
            self,
            arrays=self.arrays.take(rows),
            workload=self.workload[rows],
            target=self.target[rows],
            trial_ids=tuple(self.trial_ids[i] for i in rows),
        )


def load_corpus(place: Path) -> Corpus:
    """Read a dataset.

    Trials without features and trials with the verdict LOST are left out; rows that cannot be used
    are too.

    Args:
        place: folder or file as ``tunefleet dataset export`` writes them.

    Raises:
        TuneFleetError: DATASET_INVALID, it cannot be read or no trial of it can be used.
    """
    parts = find_parts(place)
    found = list(_records(parts.trials))
    records = [record for record, _ in found]
    if not records:
        raise invalid(f"{place} has no trial with features; import it with --featurize first")
    sources: dict[str, dict[str, int]] = {}
    for record in records:
        sources.setdefault(record.key.workload, {}).update(record.sources)
    if parts.workloads is not None:
        for workload, _ in read_workloads(parts.workloads):
            if workload.workload in sources:
                sources[workload.workload].update(workload.sources)
    workloads, workload = numbered(r.key.workload for r in records)
    targets, target = numbered(r.key.target for r in records)
    return Corpus(
        name=place.name,
        arrays=to_arrays(_row(record, profile) for record, profile in found),
        workloads=workloads,
        workload=workload,
        targets=targets,
        target=target,
        sources=tuple(sources[name] for name in workloads),
        trial_ids=tuple(r.trial.trial_id for r in records),
    )


def _records(files: Iterable[Path]) -> Iterator[tuple[TrialRecord, str]]:
    seen: set[str] = set()
    for path in files:
        for batch in read_trials(open_trials(path)):
            for item in batch:
                if isinstance(item, Refused):
                    continue
                record, profile = item
                trial = record.trial
                if trial.features is None or trial.verdict is Verdict.LOST:
                    continue
                if trial.trial_id not in seen:
                    seen.add(trial.trial_id)
                    yield record, profile


def _row(record: TrialRecord, profile: str) -> TrainingRow:
    trial = record.trial
    assert trial.features is not None
    return TrainingRow(
        workload=record.key.workload,
        target=record.key.target,
        device_fingerprint=record.key.fingerprint,
        hardware=_hardware(profile, record.key.target),
        candidate=trial.candidate,
        stores=trial.features.stores,
        features=trial.features.data,
        latency_s=trial.latency_s,
        noise=trial.noise,
        verdict=trial.verdict,
    )


@lru_cache(maxsize=1024)
def _hardware(profile: str, target: str) -> list[float]:
    return hardware_vector(DeviceProfile.from_json(profile), target)


def numbered(names: Iterable[str]) -> tuple[tuple[str, ...], Indices]:
    """Number names in order of first appearance; return them and, int64 [N], each one's number."""
    numbers: dict[str, int] = {}
    of_row = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(of_row, np.int64)
