"""Opens whatever is a dataset, for every job that learns from one or judges by one.

What lies there tells what it is: tables as ``tunefleet dataset export`` writes them, or TenSet's
measure records, whose programs this TVM cannot lower and which therefore have schedule steps only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.costmodel.feature_sets import STEPS, STORES, FeatureSet
from coordinator.dataset.reading import Refused
from coordinator.dataset.schema import About
from coordinator.dataset.tenset import MAX_NAMED, RECORDS_FOLDER, Damage
from coordinator.study.corpus import Corpus, load_corpus
from coordinator.study.profiles import read_profiles
from coordinator.study.provenance import about_dataset
from coordinator.study.step_corpus import load_steps
from coordinator.study.tenset_corpus import load_tenset
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError

Progress = Callable[[float, str], None]

PER_TASK = 128
"""Records of each task of TenSet's: those of one device then take 1.6 GB."""

_DATABASE_FILES = ("database_workload.json", "database_tuning_record.json")


@dataclass
class Unusable:
    """What was read and cannot be used: all of it counted, the first of it named."""

    count: int = 0
    named: list[dict[str, str]] = field(default_factory=list)
    """``where`` (file and line, or the trial) and ``why``."""

    def add(self, where: str, why: str) -> None:
        """Count one, and name it if not too many are."""
        self.count += 1
        if len(self.named) < MAX_NAMED:
            self.named.append({"where": where, "why": why})

    @classmethod
    def of(cls, damage: Damage) -> Unusable:
        """Make it of what could not be read of TenSet's files."""
        named = [{"where": f"{one.file}, line {one.line}", "why": one.why} for one in damage.named]
        return cls(damage.broken, named)

    def json(self) -> dict[str, Any]:
        """Return it as results of jobs have it."""
        return {"count": self.count, "named": self.named}


@dataclass(frozen=True)
class Opened:
    """A dataset and what must be known of how it was read."""

    corpus: Corpus
    about: About
    unusable: Unusable
    sampled: bool = False
    """Whether it is a part of what lies there: another part may share trials with it."""
    notes: tuple[str, ...] = ()
    """What people must know, in sentences."""


def open_corpus(
    place: Path,
    features: FeatureSet | None = None,
    *,
    per_task: int | None = None,
    profiles: Sequence[Sequence[str]] = (),
    progress: Progress | None = None,
) -> Opened:
    """Read a dataset.

    Nothing is read while something is timed on this machine: its lock must not be held already.

    Args:
        place: a dataset's folder or file of trials; or of TenSet's files the ``dataset`` folder,
            its ``measure_records``, a device's folder or one ``.json`` file.
        features: by which its programs are to be described; by default stores, and steps where
            there is nothing else.
        per_task: of TenSet's records, how many of each task; other datasets are read whole.
        profiles: of TenSet's devices, as :func:`coordinator.study.profiles.read_profiles` takes
            them; other datasets say what theirs are.
        progress: told the share read and what is being done.

    Raises:
        TuneFleetError: DATASET_INVALID, it is none or holds nothing that can be used;
            INVALID_ARGUMENT, it has no such features, or is read whole, or a profile is none.
    """
    if is_tenset(place):
        known = read_profiles(profiles, place)
        most = PER_TASK if per_task is None else per_task
        return _open_tenset(place, features, most, known, progress)
    if profiles:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{place} says of every trial what measured it: a profile is for TenSet's files",
            hint="Leave --profile out.",
        )
    if per_task is not None:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{place} is read whole: a number of records per task is for TenSet's files",
            hint="Leave it out, or make the dataset smaller with `tunefleet dataset prune`.",
        )
    features = features or STORES
    about = about_dataset(place, features)
    unusable = Unusable()

    def refuse(row: Refused) -> None:
        unusable.add(f"trial {row.name}", row.why)

    load = load_corpus if features is STORES else load_steps
    return Opened(load(place, progress, refuse), about, unusable)


def is_tenset(place: Path) -> bool:
    """Tell whether TenSet's measure records lie somewhere.

    Raises:
        TuneFleetError: DATASET_INVALID, a MetaSchedule database lies there.
    """
    if place.is_file():
        return place.suffix == ".json"
    if any(place.glob("*.parquet")):
        return False
    if all((place / name).is_file() for name in _DATABASE_FILES):
        raise TuneFleetError(
            Reason.DATASET_INVALID,
            f"{place} is a MetaSchedule database, which does not say what measured it",
            hint="Import it with `tunefleet dataset import --kind metaschedule` and export it, or "
            "give `tunefleet model evaluate` its --kind, --device and --target.",
        )
    inner = place / RECORDS_FOLDER
    return inner.is_dir() or any(place.glob("*.json")) or any(place.glob("*/*.json"))


def _open_tenset(
    place: Path,
    features: FeatureSet | None,
    per_task: int,
    profiles: Mapping[str, DeviceProfile],
    progress: Progress | None,
) -> Opened:
    if features is not None and features is not STEPS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{place} holds TenSet's records, which this TVM cannot lower: they have schedule "
            f"steps, and no {features.name}",
            hint="Use --features steps, or leave the option out.",
        )
    if per_task < 1:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, f"{per_task} records of each task are too few; give 1 or more"
        )
    corpus, damage = load_tenset(place, profiles=profiles, per_task=per_task, progress=progress)
    told = (
        f"TenSet's records: {len(corpus):,} of {damage.lines:,} lines, at most {per_task} of each "
        f"of {len(corpus.arrays.group_keys):,} tasks. {_hardware(corpus, profiles)}"
    )
    notes = [told]
    if not corpus.networks:
        notes.append("No network_info lies beside them: which networks they are of is not known.")
    about = About(
        description=f"A sample of TenSet's measure records, at most {per_task} of each task."
    )
    return Opened(corpus, about, Unusable.of(damage), sampled=True, notes=tuple(notes))


def _hardware(corpus: Corpus, profiles: Mapping[str, DeviceProfile]) -> str:
    """Say what is known of the devices."""
    devices = {key[2] for key in corpus.arrays.group_keys}
    if not profiles:
        return "TenSet does not say what its devices are: their hardware counts as unknown."
    told = f"What {', '.join(sorted(profiles))} is was given as a profile."
    others = sorted(devices - profiles.keys())
    return f"{told} The hardware of {', '.join(others)} counts as unknown." if others else told
