"""What models are judged with: a model and a dataset, wherever they are."""

# ruff: noqa: PLC0415 - what a command needs is imported when it runs, so that --help stays fast.

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunefleet.cli.local_jobs import ModelFiles
from tunefleet.cli.options import connect
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.model_files import ONNX_FILE

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Database:
    """A MetaSchedule database, and what it does not say itself."""

    place: Path
    device: str
    target: str


def find_folder(reference: str) -> Path | None:
    """Return a model's folder, or none where a version of the coordinator's is meant.

    Raises:
        TuneFleetError: MODEL_INVALID, a path leads nowhere.
    """
    path = Path(reference)
    if path.is_dir():
        return path
    if path.exists() or os.sep in reference or path.suffix == ".onnx":
        raise TuneFleetError(
            Reason.MODEL_INVALID,
            f"{reference} is no folder" if path.exists() else f"{reference}: there is no such file",
            hint="Give a model's folder, or a version from `tunefleet model list`.",
        )
    return None


@contextmanager
def found_model(reference: str, coordinator: str) -> Iterator[ModelFiles]:
    """Find a model: a folder, an ONNX file, or a version of the coordinator's, which is fetched.

    Raises:
        TuneFleetError: MODEL_INVALID, MODEL_VERSION_UNKNOWN, COORDINATOR_UNREACHABLE.
    """
    path = Path(reference)
    if path.is_file():
        yield ModelFiles(path.name, path)
        return
    folder = find_folder(reference)
    if folder is not None:
        if not (folder / ONNX_FILE).is_file():
            raise TuneFleetError(
                Reason.MODEL_INVALID,
                f"{folder} holds no {ONNX_FILE}",
                hint="Give a folder that `tunefleet model train` or `model export` wrote.",
            )
        yield ModelFiles(folder.resolve().name, folder / ONNX_FILE, folder)
        return
    with tempfile.TemporaryDirectory(prefix="tunefleet-model-") as fetched:
        place = Path(fetched) / "model"
        with connect(coordinator) as fleet:
            fleet.export_model(reference, place)
        yield ModelFiles(reference, place / ONNX_FILE, place)


@contextmanager
def stored_database(
    database: Database, coordinator: str, console: Console
) -> Iterator[tuple[Path, Path]]:
    """Have a MetaSchedule database imported and its features computed, and fetch its trials.

    Yields:
        A dataset's folder, and a file with the names of the database's trials in it.

    Raises:
        TuneFleetError: DATASET_INVALID, INVALID_ARGUMENT, DEVICE_UNKNOWN, INTERRUPTED, ...
    """
    from tunefleet.cli.watching import ActivityBar, TransferBar, follow
    from tunefleet.client.datasets import import_result, imported_trials

    name = database.place.absolute().name
    console.print(
        f"{name} is imported into the coordinator, where an agent computes its features; its "
        "trials stay there, and the next training learns from four in five of them."
    )
    with (
        tempfile.TemporaryDirectory(prefix="tunefleet-database-") as work,
        connect(coordinator) as fleet,
    ):
        with TransferBar(console, f"Sending {name}") as sending:
            campaign = fleet.import_dataset(
                database.place,
                dataset_format="metaschedule",
                device=database.device,
                target=database.target,
                upload_progress=sending.advance,
            )
        follow(campaign, console)
        campaign.raise_if_unsuccessful()
        only = Path(work) / "trials.txt"
        only.write_text("\n".join(imported_trials(campaign)))
        # Those that an earlier import brought belong to its campaign.
        own = import_result(campaign)["known"] == 0
        folder = Path(work) / name
        with ActivityBar(console) as fetching:
            fleet.export_dataset(
                folder,
                campaigns=[campaign.id] if own else (),
                devices=() if own else [database.device],
                targets=() if own else [database.target],
                activity=fetching.advance,
            )
        yield folder, only
