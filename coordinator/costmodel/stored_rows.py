"""The store's trials as training rows, in the file that jobs read."""

from __future__ import annotations

from pathlib import Path

from coordinator.costmodel import dataset
from coordinator.state.store import Store
from coordinator.state.trial_records import TrainingRow
from tunefleet.trials import Verdict


def save_stored_rows(path: Path, store: Store, *, held_out_only: bool = False) -> int:
    """Write every trial that has features.

    Args:
        path: file to write.
        store: where the trials are.
        held_out_only: only those that no version is trained on.

    Returns:
        The number of rows written.
    """
    rows = store.training_rows()
    if held_out_only:
        rows = (row for row in rows if dataset.is_held_out(row.candidate))
    return dataset.save(path, map(_dataset_row, rows))


def _dataset_row(row: TrainingRow) -> dataset.TrainingRow:
    return dataset.TrainingRow(
        workload=row.key.workload,
        target=row.key.target,
        device_fingerprint=row.key.fingerprint,
        hardware=list(row.hardware),
        candidate=row.candidate,
        stores=row.stores,
        features=row.features,
        latency_s=row.latency_s,
        noise=row.noise,
        verdict=Verdict(row.verdict),
        trace=row.trace,
    )
