"""A dataset as arrays, with what splits and pruning must know of its trials."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from coordinator.costmodel.arrays import Indices, RowArrays, to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.feature_sets import STORES, FeatureSet, of_width
from coordinator.dataset.reading import (
    Refused,
    find_parts,
    open_trials,
    read_all,
    read_workloads,
)
from coordinator.dataset.schema import invalid
from coordinator.state.trial_records import TrialRecord
from tunefleet.devices import DeviceProfile
from tunefleet.families import FAMILIES
from tunefleet.features import hardware_vector
from tunefleet.trials import Verdict

Describe: TypeAlias = Callable[[TrialRecord], tuple[int, bytes] | None]
"""Gives a trial's tokens, counted and as little-endian float32 values, or ``None`` where it has
none. Raises ValueError where they cannot be used."""


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
    def features(self) -> FeatureSet:
        """Return what its programs are described by."""
        return of_width(self.arrays.features.shape[1])

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the sources that are whole networks, sorted."""
        named = {source for sources in self.sources for source in sources}
        return tuple(sorted(named - FAMILIES.keys()))

    def measured(self) -> NDArray[np.bool_]:
        """Return bool [N]: which rows have a latency."""
        return ~np.isnan(self.arrays.log_latency)

    def digest(self) -> str:
        """Return 16 hex digits that name this set of trials, whatever their order."""
        listed = "\n".join(sorted(self.trial_ids))
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def take(self, rows: Indices) -> Corpus:
        """Return the corpus of some rows only; workloads and targets keep their numbers."""
        return replace(
            self,
            arrays=self.arrays.take(rows),
            workload=self.workload[rows],
            target=self.target[rows],
            trial_ids=tuple(self.trial_ids[i] for i in rows),
        )


def load_corpus(
    place: Path,
    progress: Callable[[float, str], None] | None = None,
    refused: Callable[[Refused], None] | None = None,
) -> Corpus:
    """Read a dataset, its programs described by their buffer stores; see :func:`gather`."""
    return gather(place, STORES, _stored, progress, refused)


def gather(
    place: Path,
    features: FeatureSet,
    describe: Describe,
    progress: Callable[[float, str], None] | None = None,
    refused: Callable[[Refused], None] | None = None,
) -> Corpus:
    """Read a dataset.

    Trials without features and trials with the verdict LOST are left out; rows that cannot be used
    are too. Nothing is read while something is timed on this machine: the
    machine's lock must not be held already.

    Args:
        place: folder or file as ``tunefleet dataset export`` writes them.
        features: what ``describe`` gives; only stores are read from the trials themselves.
        describe: describes a trial's program.
        progress: told the share read and what is being done.
        refused: told of each row that cannot be used.

    Raises:
        TuneFleetError: DATASET_INVALID, it cannot be read or no trial of it can be used.
    """
    parts = find_parts(place)
    rows: list[TrainingRow] = []
    trial_ids: dict[str, None] = {}
    sources: dict[str, dict[str, int]] = {}
    tables = [open_trials(path) for path in parts.trials]
    for item in read_all(tables, progress, features=features is STORES):
        found = item if isinstance(item, Refused) else _row(*item, features, describe)
        if isinstance(found, Refused):
            if refused is not None:
                refused(found)
            continue
        if found is None or isinstance(item, Refused):
            continue
        record = item[0]
        if record.trial.trial_id in trial_ids:
            continue
        trial_ids[record.trial.trial_id] = None
        rows.append(found)
        sources.setdefault(record.key.workload, {}).update(record.sources)
    if not rows:
        mend = "; import it with --featurize first" if features is STORES else ""
        raise invalid(f"{place} has no trial with features{mend}")
    if parts.workloads is not None:
        for known, _ in read_workloads(parts.workloads):
            if known.workload in sources:
                sources[known.workload].update(known.sources)
    workloads, workload = numbered(row.workload for row in rows)
    targets, target = numbered(row.target for row in rows)
    return Corpus(
        name=place.name,
        arrays=to_arrays(rows, features=features),
        workloads=workloads,
        workload=workload,
        targets=targets,
        target=target,
        sources=tuple(sources[name] for name in workloads),
        trial_ids=tuple(trial_ids),
    )


def usable(record: TrialRecord) -> bool:
    """Tell whether a corpus takes a trial: it has features, and was not lost."""
    return record.trial.features is not None and record.trial.verdict is not Verdict.LOST


def _stored(record: TrialRecord) -> tuple[int, bytes] | None:
    features = record.trial.features
    return None if features is None else (features.stores, features.data)


def _row(
    record: TrialRecord, profile: str, features: FeatureSet, describe: Describe
) -> TrainingRow | Refused | None:
    trial = record.trial
    if trial.verdict is Verdict.LOST:
        return None
    try:
        tokens = describe(record)
    except ValueError as e:
        return Refused(trial.trial_id, str(e))
    if tokens is None:
        return None
    row = TrainingRow(
        workload=record.key.workload,
        target=record.key.target,
        device_fingerprint=record.key.fingerprint,
        hardware=_hardware(profile, record.key.target),
        candidate=trial.candidate,
        stores=tokens[0],
        features=tokens[1],
        latency_s=trial.latency_s,
        noise=trial.noise,
        verdict=trial.verdict,
        trace=trial.trace,
    )
    if features.scheduled:
        try:
            row.schedule  # noqa: B018 (the row keeps it)
        except ValueError as e:
            return Refused(trial.trial_id, str(e))
    return row


@lru_cache(maxsize=1024)
def _hardware(profile: str, target: str) -> list[float]:
    return hardware_vector(DeviceProfile.from_json(profile), target)


def numbered(names: Iterable[str]) -> tuple[tuple[str, ...], Indices]:
    """Number names in order of first appearance; return them and, int64 [N], each one's number."""
    numbers: dict[str, int] = {}
    of_row = [numbers.setdefault(name, len(numbers)) for name in names]
    return tuple(numbers), np.array(of_row, np.int64)
