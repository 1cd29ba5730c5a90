"""Prunes TenSet's measure records: file for file, what is kept as it stood.

A file holds a task, some thousand programs of it. Each is read, pruned and written by itself, so
that memory does not grow with the files' number, and of each the same share stays, two records of
a task at the least. Programs are described by their schedule steps.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

import tunefleet
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.feature_sets import STEPS
from coordinator.costmodel.onnx_model import OnnxModel
from coordinator.dataset.schema import CARD_FILE
from coordinator.dataset.stats import Stats
from coordinator.dataset.tenset import (
    RECORDS_FOLDER,
    Damage,
    TensetRow,
    copy_lines,
    find_records,
    read_file,
)
from coordinator.dataset.tenset_networks import NETWORKS_FOLDER, find_networks, network_files
from coordinator.models.job import Progress
from coordinator.state.records import TaskKey
from coordinator.state.trial_records import TrialCount
from coordinator.study.opening import Unusable
from coordinator.study.pruning import Context, prune
from coordinator.study.pruning.quotas import PAIR
from coordinator.study.tenset_corpus import (
    Devices,
    nothing_usable,
    offered,
    tenset_corpus,
    training_row,
)
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock

_ROWS_AT_ONCE = 16_384
"""A file of more, and TenSet has none, is pruned in parts: so many take some 200 MB."""

_Part: TypeAlias = list[tuple[str, TrainingRow]]
"""Where records stood, and what they are."""

_ACROSS_TASKS = {"per_task_uniform": "random"}
"""Strategies that do nothing but divide records among tasks, and what does the same within one."""


def prune_tenset(spec: Mapping[str, Any], folder: Path, progress: Progress) -> dict[str, Any]:
    """Write the records that a strategy keeps to a new folder, laid out as TenSet's ``dataset``.

    Args:
        spec: as of :mod:`coordinator.study.prune_job`; the place is one of TenSet's.
        folder: to make.
        progress: told the share read and what is being done.

    Returns:
        ``before``, ``kept``, ``left_out`` and ``unusable`` of the job's result.

    Raises:
        TuneFleetError: DATASET_INVALID, no line can be used; MODEL_INVALID, the model does not
            rank by steps; INVALID_ARGUMENT, the strategy makes no sense of one task.
    """
    strategy = str(spec["strategy"])
    if strategy in _ACROSS_TASKS:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{strategy} divides records among tasks, and TenSet's files, each of one task, are "
            "pruned one by one",
            hint=f"Use --strategy {_ACROSS_TASKS[strategy]}: it keeps the same share of each task.",
        )
    model = None if spec["model"] is None else OnnxModel(Path(spec["model"]), allowed=(STEPS,))
    place = Path(spec["place"])
    files = find_records(place)
    total = sum(path.stat().st_size for path in files)
    pruning = _Pruning(place, spec, model)
    for path in files:
        name = _placed(place, path)
        kept: set[int] = set()
        for part in pruning.read(path, name.as_posix()):
            kept |= pruning.choose(part, name.as_posix())
            done = min(1.0, pruning.damage.bytes_read / max(1, total))
            progress(done, f"pruning records, {pruning.damage.lines} so far")
        if kept:
            copy_lines(path, kept, folder / name)
    if not folder.exists():
        raise nothing_usable(place, pruning.damage)
    for path in network_files(place):
        (folder / NETWORKS_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(path, folder / NETWORKS_FOLDER / path.name)
    result = pruning.result()
    (folder / CARD_FILE).write_text(_card(spec, result), encoding="utf-8")
    progress(1.0, "")
    return result


class _Pruning:
    """One pass over all files."""

    def __init__(self, place: Path, spec: Mapping[str, Any], model: OnnxModel | None) -> None:
        self.damage = Damage()
        self._spec = spec
        self._model = model
        self._networks = find_networks(place)
        self._before, self._after = Stats(), Stats()

    def read(self, path: Path, name: str) -> Iterator[_Part]:
        """Read a file in parts, as a rule in one; none is empty."""
        devices = Devices({})
        part: _Part = []

        def take(row: TensetRow) -> None:
            part.append((row.place, training_row(row, devices)))

        for _ in offered(read_file(path, name, self.damage), take):
            if len(part) >= _ROWS_AT_ONCE:
                yield part
                part = []
        if part:
            yield part

    def choose(self, part: _Part, name: str) -> set[int]:
        """Return the numbers of the lines to keep."""
        corpus = tenset_corpus(name, part, self._networks)
        rows = np.arange(len(corpus))
        spread = None if self._model is None else self._model.spreads(corpus.arrays, rows)
        # Else files of equal length would all keep the same lines.
        seed = hashlib.sha256(f"{self._spec['seed']}/{part[0][0]}".encode()).digest()[:8]
        context = Context(
            corpus=corpus,
            rows=rows,
            seed=int.from_bytes(seed, "little"),
            spread=None if spread is None else spread.__getitem__,
        )
        pairs = sum(min(len(task), PAIR) for task in context.tasks())
        share = max(float(self._spec["keep"]), pairs / len(corpus))
        with MachineLock().busy():
            kept = prune(str(self._spec["strategy"]), context, share)
        for stats, some in ((self._before, rows), (self._after, kept)):
            for row in some:
                stats.add(self._count(part[row][1]))
        return {int(part[row][0].rpartition(":")[2]) for row in kept}

    def result(self) -> dict[str, Any]:
        """Return what was counted, as results of the job have it."""
        broken = self.damage.broken
        return {
            "before": self._before.result(()),
            "kept": self._after.result(()),
            "left_out": {"a line that cannot be used": broken} if broken else {},
            "unusable": Unusable.of(self.damage).json(),
        }

    def _count(self, row: TrainingRow) -> TrialCount:
        return TrialCount(
            key=TaskKey(row.workload, row.target, row.device_fingerprint),
            device_id=row.device_fingerprint,
            task="",
            sources=self._networks.get(row.workload, {}),
            verdict=str(row.verdict),
            trials=1,
            featured=0,
            fastest_s=row.latency_s,
            slowest_s=row.latency_s,
        )


def _placed(place: Path, path: Path) -> Path:
    """Return where a file goes: to a folder of its device, below that of all records."""
    name = Path(path.name) if path == place else path.relative_to(place)
    if len(name.parts) == 1:
        name = path.parent.name / name
    return name if name.parts[0] == RECORDS_FOLDER else RECORDS_FOLDER / name


def _card(spec: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    before, kept = result["before"], result["kept"]
    model = f" --model {Path(spec['model']).name}" if spec["model"] is not None else ""
    return f"""# TenSet's records, pruned

{kept["trials"]:,} of the {before["trials"]:,} usable records of {before["workloads"]:,} workloads
in {Path(spec["place"]).name}, line for line as they stood there, as

    tunefleet dataset prune --strategy {spec["strategy"]} --keep {spec["keep"]:g} \\
        --seed {spec["seed"]}{model}

chose them, file by file: of each the same share stays, and two records of a task at the least.
They are not drawn at random any more. TenSet's own licence holds for them. Written by TuneFleet
{tunefleet.__version__}.
"""
