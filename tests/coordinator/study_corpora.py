"""Small corpora for tests of splits and pruning."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from costmodel_rows import hardware

from coordinator.costmodel.arrays import to_arrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.study.corpus import Corpus
from tunefleet.features import PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Verdict

NETWORKS: tuple[Mapping[str, int], ...] = (
    {"net-a": 1},
    {"net-a": 2, "net-b": 1},
    {"net-b": 1, "conv2d": 1},
    {"net-c": 1},
    {"conv2d": 1},
    {"dense": 1},
    {"dense": 1},
    {"net-d": 3, "net-c": 1},
)
"""Of eight workloads: two belong to two networks, one to a network and a family."""


def make_corpus(
    sources: Sequence[Mapping[str, int]] = NETWORKS,
    sizes: Sequence[int] = (12,),
    *,
    targets: int = 2,
    failures: int = 1,
) -> Corpus:
    """Make trials of programs with random features and latencies.

    Args:
        sources: of each workload.
        sizes: trials of each workload on each target, used in turn.
        targets: each measures the same programs.
        failures: of each task; they have no latency.
    """
    rng = np.random.default_rng(0)
    rows, workload, target = [], [], []
    for t in range(targets):
        for w in range(len(sources)):
            size = sizes[(t * len(sources) + w) % len(sizes)]
            for number in range(size):
                rows.append(_row(rng, w, t, number, failed=number < failures))
                workload.append(w)
                target.append(t)
    return Corpus(
        name="made-up",
        arrays=to_arrays(rows),
        workloads=tuple(_workload(w) for w in range(len(sources))),
        workload=np.array(workload, np.int64),
        targets=tuple(_target(t) for t in range(targets)),
        target=np.array(target, np.int64),
        sources=tuple(sources),
        trial_ids=tuple(
            hashlib.sha256(f"{row.target}/{row.candidate}".encode()).hexdigest() for row in rows
        ),
    )


def _row(
    rng: np.random.Generator, workload: int, target: int, number: int, *, failed: bool
) -> TrainingRow:
    stores = 1 + number % 2
    features = np.zeros((stores, PROGRAM_FEATURES_PER_STORE), np.float32)
    features[:, :8] = rng.normal(5.0, 2.0, (stores, 8))
    return TrainingRow(
        workload=_workload(workload),
        target=_target(target),
        device_fingerprint="d" * 16,
        hardware=hardware(),
        candidate=hashlib.sha256(f"{workload}/{number}".encode()).hexdigest()[:16],
        stores=stores,
        features=features.tobytes(),
        latency_s=None if failed else float(np.exp(rng.normal(-7.0, 1.0))),
        noise=math.nan if failed else 0.01,
        verdict=Verdict.TIMEOUT if failed else Verdict.OK,
    )


def _workload(number: int) -> str:
    return f"{number:016x}"


def _target(number: int) -> str:
    return f'{{"kind":"llvm","num-cores":{number + 1}}}'
