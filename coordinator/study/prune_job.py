"""The prune job: a dataset to a smaller one, of those trials that a strategy keeps.

Spec: ``{"place": folder or file, "out_dir", "keep": 0 to 1, "strategy", "seed", "model": path of an
ONNX file or null}``.

Result: ``{"before": as coordinator.dataset.stats, "kept": the same, "left_out": {why: trials that
no strategy could choose}, "files": [path]}``, and of TenSet's files
``"unusable": {"count", "named": [{"where", "why"}, ...]}``.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.dataset.card import data_card
from coordinator.dataset.reading import (
    Parts,
    Refused,
    Table,
    find_parts,
    open_trials,
    read_all,
    read_devices,
    read_workloads,
)
from coordinator.dataset.schema import (
    CARD_FILE,
    DEVICES_FILE,
    TRIALS_FILE,
    WORKLOADS_FILE,
    About,
)
from coordinator.dataset.stats import Stats
from coordinator.dataset.writing import trial_row, trials_writer, write_devices, write_workloads
from coordinator.models.job import Progress, run_job
from coordinator.state.trial_records import TrialRecord
from coordinator.study.corpus import Corpus, load_corpus, usable
from coordinator.study.model_spread import model_spread
from coordinator.study.opening import is_tenset
from coordinator.study.provenance import about_tables
from coordinator.study.prune_tenset import prune_tenset
from coordinator.study.pruning import Context, check_keep, prune, strategy_of
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock

_READ, _ASKED, _CHOSEN = 0.3, 0.4, 0.45
"""Shares of the whole work that are done after each step; writing is the rest."""


def prune_dataset(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    The folder appears under its name only when it is complete.

    Raises:
        TuneFleetError: DATASET_INVALID, MODEL_INVALID, INVALID_ARGUMENT.
    """
    place, out_dir = Path(spec["place"]), Path(spec["out_dir"])
    strategy_of(str(spec["strategy"]))
    check_keep(float(spec["keep"]))
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{out_dir} exists and is not empty",
            hint="Name a new folder for what is kept, or remove that one.",
        )
    partial = out_dir.with_name(f".{out_dir.name}.partial-{secrets.token_hex(4)}")
    prune_place = prune_tenset if is_tenset(place) else _prune_tables
    try:
        result = prune_place(spec, partial, progress)
        # An empty folder of that name is replaced; one that was filled meanwhile is not.
        partial.rename(out_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    files = sorted(path for path in out_dir.rglob("*") if path.is_file())
    return {**result, "files": [str(path) for path in files]}


def _prune_tables(spec: Mapping[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    """Write what is kept of tables to a new folder."""
    place = Path(spec["place"])
    parts = find_parts(place)
    tables = [open_trials(path) for path in parts.trials]
    about = about_tables(tables, place)
    corpus = load_corpus(place, _part(progress, 0.0, _READ))
    kept = _choose(corpus, spec, progress)
    described = f"{about.description} {_told(corpus, len(kept), spec)}".strip()
    folder.mkdir(parents=True)
    writing = _Writing(parts, tables, kept)
    return writing.write(folder, About(about.licence, described), _part(progress, _CHOSEN, 1.0))


def _choose(corpus: Corpus, spec: Mapping[str, Any], progress: Progress) -> set[str]:
    """Return the ids of the trials to keep."""
    asked = None
    if spec["model"] is not None:
        asked = model_spread(Path(spec["model"]), corpus, _part(progress, _READ, _ASKED))
    context = Context(
        corpus=corpus,
        rows=np.arange(len(corpus)),
        seed=int(spec["seed"]),
        spread=None if asked is None else asked.__getitem__,
    )
    progress(_ASKED, "choosing trials")
    # A second for forty thousand trials of many tasks, four if they are of one: whoever wants to
    # time something waits for it once.
    with MachineLock().busy():
        kept = prune(str(spec["strategy"]), context, float(spec["keep"]))
    return {corpus.trial_ids[row] for row in kept}


@dataclass
class _Writing:
    """One pass over a dataset, in which what is kept is written."""

    parts: Parts
    tables: list[Table]
    kept: set[str]
    """Ids of trials."""
    _before: Stats = field(default_factory=Stats)
    _after: Stats = field(default_factory=Stats)
    _left_out: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)
    _workloads: set[str] = field(default_factory=set)
    _places: set[tuple[str, str]] = field(default_factory=set)

    def write(self, folder: Path, about: About, progress: Progress) -> dict[str, Any]:
        with trials_writer(folder / TRIALS_FILE, about) as table:
            for item in read_all(self.tables, progress):
                if isinstance(item, Refused):
                    self._left_out["a row that cannot be used"] += 1
                elif self._keeps(item[0]):
                    table.add(trial_row(*item))
        files = [TRIALS_FILE]
        if self.parts.workloads is not None:
            wanted = (
                item
                for item in read_workloads(self.parts.workloads)
                if item[0].workload in self._workloads
            )
            write_workloads(folder / WORKLOADS_FILE, about, wanted)
            files.append(WORKLOADS_FILE)
        known = list(read_devices(self.parts.devices)) if self.parts.devices else []
        used = [p for p in known if (p.device_id, p.profile.fingerprint()) in self._places]
        if self.parts.devices is not None:
            write_devices(folder / DEVICES_FILE, about, used)
            files.append(DEVICES_FILE)
        result = self._after.result(used)
        (folder / CARD_FILE).write_text(data_card(about, result, used, files), encoding="utf-8")
        return {
            "before": self._before.result(known),
            "kept": result,
            "left_out": dict(self._left_out.most_common()),
        }

    def _keeps(self, record: TrialRecord) -> bool:
        """Count a trial, and tell whether it is to be written."""
        name = record.trial.trial_id
        if not usable(record):
            why = "without features" if record.trial.features is None else "lost"
            self._left_out[why] += 1
            return False
        if name in self._seen:
            self._left_out["there twice"] += 1
            return False
        self._seen.add(name)
        self._before.add_trial(record)
        if name not in self.kept:
            return False
        self._after.add_trial(record)
        self._workloads.add(record.key.workload)
        self._places.add((record.device_id, record.key.fingerprint))
        return True


def _told(corpus: Corpus, kept: int, spec: Mapping[str, Any]) -> str:
    model = f" --model {Path(spec['model']).name}" if spec["model"] is not None else ""
    return (
        f"Pruned: {kept:,} of the {len(corpus):,} usable trials of {corpus.name} (trials' digest "
        f"{corpus.digest()}), as `tunefleet dataset prune --strategy {spec['strategy']} --keep "
        f"{spec['keep']:g} --seed {spec['seed']}{model}` chose them: what is counted here is no "
        "longer what was drawn at random."
    )


def _part(progress: Progress, begin: float, end: float) -> Progress:
    """Make a step's own progress a part of the whole."""
    return lambda share, message: progress(begin + (end - begin) * share, message)


if __name__ == "__main__":
    sys.exit(run_job(prune_dataset))
