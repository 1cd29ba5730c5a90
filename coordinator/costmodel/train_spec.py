"""What a training job is told."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class SpecError(Exception):
    """The spec cannot be used as it is."""


@dataclass(frozen=True)
class TrainSpec:
    """What to train. ``parent_checkpoint`` is ``None`` to train from scratch."""

    rows: Path
    parent_checkpoint: Path | None
    out_dir: Path
    version: str
    seed: int = 0
    threads: int = 2
    noise: float = 0.02

    @classmethod
    def read(cls, path: Path) -> TrainSpec:
        """Read a spec file.

        Raises:
            SpecError: it cannot be read, lacks an entry, or has one of the wrong type.
        """
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
            parent = str(raw["parent_checkpoint"])
            spec = cls(
                rows=Path(raw["rows"]),
                parent_checkpoint=Path(parent) if parent else None,
                out_dir=Path(raw["out_dir"]),
                version=str(raw["version"]),
                seed=int(raw.get("seed", cls.seed)),
                threads=int(raw.get("threads", cls.threads)),
                noise=float(raw.get("noise", cls.noise)),
            )
        except KeyError as e:
            raise SpecError(f"the spec {path} lacks the entry {e}") from e
        except (OSError, ValueError, TypeError, AttributeError) as e:
            raise SpecError(f"the spec {path} cannot be used: {e}") from e
        if not spec.version or spec.threads < 1 or not 0.0 <= spec.noise < 1.0:
            raise SpecError(f"the spec {path} has a version, threads or noise out of range")
        return spec
