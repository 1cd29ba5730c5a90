"""What a model's folder says of the model, as far as it can be believed and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunefleet.model_files import ABOUT_FILE

_MAX_ABOUT_BYTES = 16 << 20
"""The names of a hundred thousand workloads take 2 MB."""


@dataclass(frozen=True)
class Learned:
    """What a model learned from, its parents included."""

    datasets: frozenset[str] | None
    """Digests of datasets; ``None`` where it is not known."""
    workloads: frozenset[str]
    """Structural hashes, as far as they are known."""


NOT_KNOWN = Learned(None, frozenset())


def read_about(folder: Path) -> dict[str, Any]:
    """Return what ``model.json`` says; empty where there is none that can be read."""
    path = folder / ABOUT_FILE
    try:
        if path.stat().st_size > _MAX_ABOUT_BYTES:
            return {}
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def learned_from(about: Mapping[str, Any]) -> Learned:
    """Return what a model learned from, by what its folder says."""
    try:
        datasets = frozenset(str(dataset["digest"]) for dataset in about["trained_on"])
        return Learned(datasets, frozenset(str(name) for name in about["workloads"]))
    except (KeyError, TypeError):
        return NOT_KNOWN
