"""A base model that knows nothing of the networks a bench judges by.

Left out of the dataset is every workload that is structurally equal to a task of one of them, or
that was collected from one of them. Run as a job: ``{"place", "out_dir", "epochs"}``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.models.job import Progress, run_job
from coordinator.study.model_folder import learned_from, read_about
from scripts.benches.harness import Figure, figure, note
from scripts.benches.quality_jobs import run_job_once
from scripts.benches.quality_networks import SOURCES, QualityNetwork
from tunefleet.model_files import ONNX_FILE


@dataclass(frozen=True)
class LeftOut:
    """What a dataset lost."""

    workloads: int
    trials: int
    kept_trials: int


@dataclass(frozen=True)
class Base:
    """The base model of a bench, and what is to be told of it."""

    folder: Path
    figures: dict[str, Figure]


def named_base(folder: Path, networks: Sequence[QualityNetwork]) -> Base:
    """Take a model as it is, counting which of the networks' tasks it was trained on."""
    known = learned_from(read_about(folder)).workloads & _tasks(networks)
    return Base(folder, {"base_known_tasks": figure([len(known)])})


def base_without(
    networks: Sequence[QualityNetwork], place: Path, folder: Path, epochs: int | None
) -> Base:
    """Train a base model on a dataset without some networks, unless the folder has it.

    Args:
        networks: that it must know nothing of.
        place: the dataset.
        folder: for the smaller dataset and the model.
        epochs: over the dataset; by default what its size calls for.

    Raises:
        JobError: it could not be trained.
    """
    tasks = _tasks(networks)
    sources = {s for n in networks for s in SOURCES.get(n.name, (n.name,))}
    kept = folder / "left-out.json"
    wanted = {"dataset": str(place), "tasks": sorted(tasks), "sources": sorted(sources)}
    if not kept.exists() or json.loads(kept.read_text())["wanted"] != wanted:
        note("time-to-quality: leaving these networks out of the dataset")
        lost = leave_out(place, folder / "dataset", tasks, sources)
        counts = {"workloads": lost.workloads, "trials": lost.trials}
        kept.write_text(json.dumps({"wanted": wanted, **counts}))
    note("time-to-quality: the base model")
    base = named_base(train_base(folder / "dataset", folder, epochs), networks)
    counted = json.loads(kept.read_text())
    figures = {f"base_{n}_left_out": figure([counted[n]]) for n in ("workloads", "trials")}
    return Base(base.folder, {**figures, **base.figures})


def _tasks(networks: Sequence[QualityNetwork]) -> set[str]:
    return {workload for network in networks for workload in network.tasks}


def leave_out(
    place: Path, out_dir: Path, workloads: Collection[str], sources: Collection[str]
) -> LeftOut:
    """Write a dataset without some workloads.

    Args:
        place: a dataset's folder; it needs its table of workloads, which knows all their sources.
        out_dir: for the smaller one; what is there is replaced.
        workloads: structural hashes to leave out.
        sources: names of networks whose workloads are left out, those shared with others included.
    """
    # Here, so that whoever only wants the name of a model does without pyarrow.
    from coordinator.dataset.reading import read_workloads  # noqa: PLC0415
    from coordinator.dataset.schema import (  # noqa: PLC0415
        DEVICES_FILE,
        TRIALS_FILE,
        WORKLOADS_FILE,
    )

    known = {
        record.workload: record.sources for record, _ in read_workloads(place / WORKLOADS_FILE)
    }
    gone = {
        name for name, of in known.items() if name in workloads or not of.keys().isdisjoint(sources)
    }
    shutil.rmtree(out_dir, ignore_errors=True)
    out_dir.mkdir(parents=True)
    shutil.copy(place / DEVICES_FILE, out_dir)
    left_out = {
        name: _filter(place / name, out_dir / name, gone | set(workloads))
        for name in (WORKLOADS_FILE, TRIALS_FILE)
    }
    lost, kept = left_out[TRIALS_FILE]
    return LeftOut(left_out[WORKLOADS_FILE][0], lost, kept)


def _filter(source: Path, target: Path, gone: Collection[str]) -> tuple[int, int]:
    """Copy the rows of other workloads; returns how many were left out and how many were kept."""
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.compute as pc  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    reader = pq.ParquetFile(source)
    names = pa.array(sorted(gone), pa.string())
    lost = kept = 0
    with pq.ParquetWriter(target, reader.schema_arrow, compression="zstd") as writer:
        for group in range(reader.num_row_groups):
            table = reader.read_row_group(group)
            rest = table.filter(pc.invert(pc.is_in(table["workload"], names)))
            lost += len(table) - len(rest)
            kept += len(rest)
            writer.write_table(rest)
    return lost, kept


def train_base(place: Path, folder: Path, epochs: int | None) -> Path:
    """Train a base model as ``tunefleet model train`` does, unless the folder has it.

    Args:
        place: the dataset.
        folder: for the model and its log.
        epochs: over the dataset; by default what its size calls for.

    Returns:
        The model's folder.

    Raises:
        JobError: it could not be trained.
    """
    out_dir = folder / "base"
    if not (out_dir / ONNX_FILE).is_file():
        spec = {"place": str(place), "out_dir": str(out_dir), "epochs": epochs}
        run_job_once("scripts.benches.quality_base", spec, folder)
    return out_dir


def _train(spec: Mapping[str, Any], _progress: Progress) -> dict[str, Any]:
    from tunefleet.cli.local_jobs import train_model  # noqa: PLC0415

    return train_model(
        Path(spec["place"]),
        Path(spec["out_dir"]),
        parent=None,
        features=None,
        per_task=None,
        seed=0,
        threads=None,
        epochs=spec["epochs"],
    )


if __name__ == "__main__":
    sys.exit(run_job(_train))
