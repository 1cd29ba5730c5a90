"""Measured profiles kept in the agent's home, so that a restart does not measure again."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tunefleet.devices import DeviceProfile, MeasuredProfile

FILE_NAME = "measured_profile.json"

_METHOD = 1
"""Raise it when figures are measured in another way, so that none of the old ones are used."""


@dataclass(frozen=True)
class Measurement:
    """What the profile job found out."""

    measured: MeasuredProfile
    llvm_cpu: str | None
    undisturbed: bool = True
    """Whether the machine had nothing else to do; only such figures are worth keeping."""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Measurement:
        """Check and convert what the job wrote.

        Raises:
            ValueError: it is no such thing, or a figure is neither ``None`` nor finite and
                positive.
        """
        known = {field.name for field in fields(MeasuredProfile)}
        try:
            figures = dict(raw["measured"])
            cpu, undisturbed = raw["llvm_cpu"], raw["undisturbed"]
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"not a measurement: {e}") from e
        if not figures.keys() <= known or not all(map(_plausible, figures.values())):
            raise ValueError(f"not measured figures: {figures}")
        if not isinstance(cpu, str | None) or not isinstance(undisturbed, bool):
            raise ValueError("not a measurement: llvm_cpu or undisturbed has the wrong type")  # noqa: TRY004
        return cls(MeasuredProfile(**figures), cpu, undisturbed)


def cache_key(static: DeviceProfile, target: str | None) -> str:
    """Name what a measurement depends on: the hardware, TVM's version, the target, the method."""
    parts = [static.fingerprint(), static.versions.get("apache-tvm"), target, _METHOD]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def load(home: Path, key: str) -> Measurement | None:
    """Return what was stored under a key; ``None`` if nothing was or the file is not readable."""
    try:
        return Measurement.from_dict(_entries(home)[key])
    except (KeyError, ValueError):
        return None


def store(home: Path, key: str, measurement: Measurement) -> None:
    """Add or replace one measurement; a reader sees the old file or the new one, never a part.

    Raises:
        OSError: the folder cannot be written to.
    """
    home.mkdir(parents=True, exist_ok=True)
    entries = {**_entries(home), key: asdict(measurement)}
    handle, temporary = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=home)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(entries, file, sort_keys=True, indent=1)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(home / FILE_NAME)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _entries(home: Path) -> dict[str, Any]:
    """Read all entries; an absent or corrupt file has none."""
    try:
        raw = json.loads((home / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return raw if isinstance(raw, dict) else {}


def _plausible(figure: object) -> bool:
    if figure is None:
        return True
    if isinstance(figure, bool) or not isinstance(figure, int | float):
        return False
    return math.isfinite(figure) and figure > 0
