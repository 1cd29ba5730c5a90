"""Small cost models as folders, and a store whose trials tell good ones from bad ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from costmodel_rows import fitted, hardware
from store_samples import KEY, NOW, PROFILE, campaign, device, features, lease, task, trial

from coordinator.costmodel.arrays import RowArrays, to_arrays
from coordinator.costmodel.checkpoint import Checkpoint
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.export import export
from coordinator.costmodel.model import CostModel, ModelConfig
from coordinator.costmodel.train import TrainConfig, fit
from coordinator.dataset.schema import About
from coordinator.dataset.writing import trial_row, trials_writer
from coordinator.state.store import Store
from coordinator.state.trial_records import TrialRecord
from tunefleet.features import schema_digest
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE
from tunefleet.trials import Verdict

SMALL = TrainConfig(
    model=ModelConfig(width=16, hardware_width=8, head_width=8, blocks=1),
    threads=1,
    min_steps=80,
    max_steps=80,
    hardware_dropout=0.0,
)
TRIALS = 100
"""Of the store; every fifth is held out."""


def fill(store: Store, trials: int = TRIALS) -> None:
    """Store trials that are slower the larger the values of their features and their tile."""
    store.put_device(device())
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    store.grant_lease(lease())
    made = [trial(n, trace=trace(n)) for n in range(1, trials + 1)]
    store.ingest_trials("id-pi4", "l-1", 1, made, NOW)


def rows(*, upside_down: bool = False) -> RowArrays:
    """Make rows as the store has them, or with the slowest as the fastest."""
    numbers = range(1, TRIALS + 1)
    return to_arrays(
        TrainingRow(
            workload="0" * 16,
            target="{}",
            device_fingerprint="d" * 16,
            hardware=hardware(),
            candidate=f"{n:016x}",
            stores=features(n).stores,
            features=features(n).data,
            latency_s=(TRIALS + 1 - n if upside_down else n) / 1000,
            noise=0.01,
            verdict=Verdict.OK,
            trace=trace(n),
        )
        for n in numbers
    )


def trace(number: int) -> str:
    """Make the trace of a schedule that splits a loop by the number."""
    instructions = [
        ["GetSBlock", [], ["matmul", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], ["l1", "l2"]],
        ["SamplePerfectTile", ["l1"], [2, 64], ["v3", "v4"]],
        ["Split", ["l1", "v3", "v4"], [True, False], ["l5", "l6"]],
    ]
    return json.dumps([instructions, [[2, [number, 4]]]])


def write_dataset(
    folder: Path, workloads: int = 6, per_task: int = 20, *, without_features: bool = False
) -> Path:
    """Write a dataset whose programs are slower the larger the values of their features, and the
    larger the tile in their trace.

    Every fifth trial is held out, as in the store.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = About(licence="CC-BY-4.0", description="Made up for tests.")
    with trials_writer(folder / "trials.parquet", about) as table:
        for workload in range(workloads):
            key = replace(KEY, workload=f"{workload:016x}")
            for number in range(1, per_task + 1):
                described = None if without_features else features(number)
                made = trial(100 * workload + number, features=described, trace=trace(number))
                sources = {f"net-{workload % 3}": 1 + workload}
                record = TrialRecord(key, "id-pi4", "c-1", "conv2d", sources, made)
                table.add(trial_row(record, PROFILE.to_json()))
    return folder


def train_small(lock: MachineLock, *, upside_down: bool = False, seed: int = 0) -> CostModel:
    """Train a model for a moment; upside down it takes fast programs for slow ones."""
    return fit(rows(upside_down=upside_down), None, replace(SMALL, seed=seed), lock=lock).model


def untrained(seed: int = 0) -> CostModel:
    """Make a model that guesses."""
    return fitted(rows(), SMALL.model, seed)


def write_model(folder: Path, model: CostModel, **about: Any) -> Path:
    """Write a model as a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    export(model, folder / ONNX_FILE, folder.name)
    Checkpoint.of(model, folder.name, "", TRIALS).save(folder / CHECKPOINT_FILE)
    content = {
        "tunefleet_model": 1,
        "name": folder.name,
        "feature_schema": schema_digest(),
        "metrics": {"pca": {"value": 0.75, "low": 0.7, "high": 0.8}},
    }
    (folder / ABOUT_FILE).write_text(json.dumps(content | about))
    return folder
