"""The base model: shipped with the project, so that every fleet ranks from its first round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunefleet.model_files import CHECKPOINT_FILE

if TYPE_CHECKING:
    from coordinator.costmodel.checkpoint import Checkpoint

BASE_VERSION = "base"
"""Its name among a coordinator's versions."""


def base_folder() -> Path:
    """Return the model's folder, as ``tunefleet model train`` writes it."""
    return Path(__file__).parent / "base"


def base_checkpoint() -> Checkpoint:
    """Load its weights.

    Raises:
        FileNotFoundError: this release ships none.
        ValueError: they were made for another release's features.
    """
    # torch, of which the coordinator's main process, which only copies the files, has none.
    from coordinator.costmodel.checkpoint import Checkpoint  # noqa: PLC0415

    return Checkpoint.load(base_folder() / CHECKPOINT_FILE)
