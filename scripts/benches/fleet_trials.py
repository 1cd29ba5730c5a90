"""Trials of simulated agents: real schedules of the shipped dataset under new names."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tunefleet.conversions import trial_to_proto
from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Conditions, ProgramFeatures, Trial, Verdict, trial_id
from tunefleet.v1 import trial_pb2

_DATASET = Path(__file__).parents[2] / "datasets" / "zen4-one-core" / "trials.parquet"
_COLUMNS = ["trace", "features", "samples_s", "verdict", "build_s", "run_s"]
_CONDITIONS = Conditions(
    clock_mhz=2794.75,
    load_average=1.22,
    memory_available_bytes=7_916_453_888,
    canary_s=0.00102,
    foreign_cores=0.031,
    steal_cores=0.004,
    waited_share=0.012,
    attempts=1,
    flushed_cache=False,
)


class TrialSource:
    """Makes trials as large and as compressible as measured ones."""

    def __init__(self, seed: int, kinds: int = 256) -> None:
        """Read the dataset.

        Args:
            seed: of names and of the order of trials.
            kinds: different trials to draw from.
        """
        self._chance = random.Random(seed)
        rows = next(pq.ParquetFile(_DATASET).iter_batches(4096, columns=_COLUMNS)).to_pylist()
        good = [row for row in rows if row["verdict"] == "ok" and row["features"]]
        self._kinds = [_message(row) for row in self._chance.sample(good, kinds)]

    def next(self, lease_id: str) -> trial_pb2.Trial:
        """Make another trial of a lease."""
        made = trial_pb2.Trial()
        made.CopyFrom(self._chance.choice(self._kinds))
        made.candidate = f"{self._chance.getrandbits(64):016x}"
        made.trial_id = trial_id(lease_id, made.candidate, 0)
        made.lease_id = lease_id
        return made


def _message(row: dict[str, object]) -> trial_pb2.Trial:
    data = np.asarray(row["features"], dtype="<f4")
    return trial_to_proto(
        Trial(
            trial_id="",
            lease_id="",
            candidate="",
            trace=str(row["trace"]),
            verdict=Verdict.OK,
            samples_s=tuple(row["samples_s"]),  # type: ignore[arg-type]
            features=ProgramFeatures(len(data) // PROGRAM_FEATURES_PER_STORE, data.tobytes()),
            predicted=0.5,
            model_version="base",
            build_s=row["build_s"],  # type: ignore[arg-type]
            run_s=row["run_s"],  # type: ignore[arg-type]
            started_at_unix_s=1_800_000_000.0,
            conditions=_CONDITIONS,
        )
    )
