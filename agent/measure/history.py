"""What the reference kernel usually takes on this machine, over its last hour of measuring."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path

_BUCKET_S = 300.0
"""Readings of five minutes count as one stretch."""
_BUCKETS_KEPT = 12
"""Stretches remembered: a machine that stays slower than it was for an hour of measuring is taken
to be so by nature."""
_QUANTILE = 0.1
"""A stretch's usual reading: low, since whatever disturbs makes the kernel slower, yet not the
lowest, which a short boost of the clock may have brought."""
_READINGS_KEPT = 500


class CanaryHistory:
    """Readings of one target and number of threads, kept in a file across restarts."""

    def __init__(
        self, folder: Path, target: str, threads: int, clock: Callable[[], float] = time.time
    ) -> None:
        """Read what is known.

        Args:
            folder: where the file ``canary.json`` lies or will; readings of all targets share it.
            target: canonical target that the kernel is compiled for.
            threads: threads it runs on.
            clock: seconds since 1970.
        """
        self._path = folder / "canary.json"
        self._key = f"{threads} {target}"
        self._clock = clock
        self._readings: list[float] = []
        self._buckets = {int(number): low for number, low in self._stored().items()}

    def usual_s(self) -> float | None:
        """Return the lowest of the stretches' usual readings in seconds, if there is any."""
        return min(self._buckets.values(), default=None)

    def add(self, readings_s: list[float]) -> None:
        """Note readings, in seconds, disturbed ones included."""
        number = int(self._clock() // _BUCKET_S)
        if number not in self._buckets:
            self._readings = []
        if not readings_s:
            return
        self._readings = [*self._readings, *readings_s][-_READINGS_KEPT:]
        ordered = sorted(self._readings)
        self._buckets[number] = ordered[int(_QUANTILE * len(ordered))]
        for old in sorted(self._buckets)[:-_BUCKETS_KEPT]:
            del self._buckets[old]

    def save(self) -> None:
        """Write to the file; one that cannot be written costs the memory of it, nothing else."""
        known = self._file()
        known[self._key] = {str(number): low for number, low in self._buckets.items()}
        partial = self._path.with_suffix(".partial")
        with contextlib.suppress(OSError):
            partial.write_text(json.dumps(known))
            partial.replace(self._path)

    def _stored(self) -> dict[str, float]:
        return self._file().get(self._key, {})

    def _file(self) -> dict[str, dict[str, float]]:
        try:
            known: dict[str, dict[str, float]] = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return {}
        return known
