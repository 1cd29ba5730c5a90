"""The families job: samples small networks of each family and extracts what there is to tune.

Spec: ``{"families": [name], "workloads": n, "seed": s, "targets": [canonical target JSON],
"out_dir"}``. Result: that of the import job with nothing but tasks; each task also has
``"sources": {family: 1}``, and there are up to ``workloads`` different ones a family and target.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from coordinator.models.families import SAMPLERS
from coordinator.models.families.graph import Graph
from coordinator.models.import_job import describe_tasks
from coordinator.models.job import Progress, first_line, run_job
from coordinator.models.onnx_network import to_relax
from coordinator.models.prepare import prepare
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.machine_lock import MachineLock

_log = structlog.get_logger()

_SAMPLES_AT_ONCE = 16
"""Networks imported as one: each pass costs the more the more often it starts."""

_FRUITLESS_BATCHES = 8
"""Batches in a row without a new workload after which a family counts as used up."""

_SHARE_OF_MOVEMENT = 0.1
"""Share of a family's workloads that may only move data: every sample brings transpositions, but
networks have few."""


_MOST_FLOPS = 5e8
"""Neighbours of what is sampled may be far larger; a bad schedule of one would run for seconds."""


def sample_families(spec: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do the job; see the module's docstring for spec and result.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, there is no such family.
    """
    out_dir = Path(spec["out_dir"])
    out_dir.mkdir(parents=True, exist_ok=True)
    families, targets = list(spec["families"]), list(spec["targets"])
    unknown = sorted(set(families) - set(SAMPLERS))
    if unknown:
        raise TuneFleetError(Reason.INVALID_ARGUMENT, f"there is no family {', '.join(unknown)}")
    lock = MachineLock()
    by_family: list[list[dict[str, Any]]] = []
    for index, family in enumerate(families):
        sampling = _Sampling(family, int(spec["workloads"]), int(spec["seed"]), targets, out_dir)
        while not sampling.done:
            share = (index + sampling.share) / len(families)
            progress(share, f"sampling workloads of {family}")
            with lock.busy():
                sampling.sample()
        by_family.append(_shuffled(sampling.tasks, int(spec["seed"])))
    return {
        "prepared": {},
        "untuned": {},
        "tasks": _interleaved(by_family),
        "onnx": None,
        "inputs_npz": None,
        "outputs_npz": None,
    }


class _Sampling:
    """The different workloads of one family, as far as they are sampled."""

    def __init__(
        self, family: str, wanted: int, seed: int, targets: list[str], out_dir: Path
    ) -> None:
        self.tasks: list[dict[str, Any]] = []
        self._family = family
        self._wanted = wanted
        self._seed = seed
        self._targets = targets
        self._out_dir = out_dir
        self._found: dict[str, bool] = {}  # whether it only moves data
        self._kept: set[tuple[str, str]] = set()
        self._sampled = 0
        self._fruitless = 0

    @property
    def done(self) -> bool:
        return len(self._found) >= self._wanted or self._fruitless >= _FRUITLESS_BATCHES

    @property
    def share(self) -> float:
        return len(self._found) / self._wanted

    def sample(self) -> None:
        """Sample a batch of networks and keep what is new."""
        before = len(self._found)
        numbers = range(self._sampled, self._sampled + _SAMPLES_AT_ONCE)
        self._sampled += _SAMPLES_AT_ONCE
        try:
            extracted = self._extract(list(numbers))
        except Exception as e:  # one sample in it is more than the importer can take
            _log.warning("batch_not_imported", family=self._family, error=first_line(e))
            extracted = [task for number in numbers for task in self._extract_one(number)]
        for task in extracted:
            self._keep(task)
        self._fruitless = 0 if len(self._found) > before else self._fruitless + 1

    def _extract_one(self, number: int) -> list[dict[str, Any]]:
        try:
            return self._extract([number])
        except Exception as e:
            _log.warning("sample_left_out", family=self._family, error=first_line(e))
            return []

    def _extract(self, numbers: list[int]) -> list[dict[str, Any]]:
        graph = Graph(_seed(self._seed, self._family, numbers[0]))
        for _ in numbers:
            SAMPLERS[self._family](graph)
        module = to_relax(graph.model())
        return [
            task
            for target in self._targets
            for task in describe_tasks(prepare(module, target), target, self._out_dir)
        ]

    def _keep(self, task: dict[str, Any]) -> None:
        if task["flops"] > _MOST_FLOPS:
            return
        workload = task["workload"]
        moves = task["flops"] == 0
        if workload not in self._found:
            crowded = sum(self._found.values()) >= self._wanted * _SHARE_OF_MOVEMENT
            if len(self._found) >= self._wanted or (moves and crowded):
                return
            self._found[workload] = moves
        if (workload, task["target"]) not in self._kept:
            self._kept.add((workload, task["target"]))
            self.tasks.append(task | {"weight": 1, "sources": {self._family: 1}})


def _shuffled(tasks: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Mix the workloads: extraction puts large ones first, and a collection may end early."""
    workloads = sorted({task["workload"] for task in tasks})
    random.Random(seed).shuffle(workloads)
    place = {workload: index for index, workload in enumerate(workloads)}
    return sorted(tasks, key=lambda task: place[task["workload"]])


def _interleaved(by_family: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the families' tasks in turn: a collection that is ended early has some of each.

    A workload that two families have is one task with two sources.
    """
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for place in range(max(map(len, by_family), default=0)):
        for tasks in by_family:
            if place >= len(tasks):
                continue
            task = tasks[place]
            key = (task["workload"], task["target"])
            if key in merged:
                merged[key]["sources"] |= task["sources"]
            else:
                merged[key] = task
    return list(merged.values())


def _seed(seed: int, family: str, number: int) -> int:
    digest = hashlib.sha256(f"{seed}/{family}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


if __name__ == "__main__":
    sys.exit(run_job(sample_families))
