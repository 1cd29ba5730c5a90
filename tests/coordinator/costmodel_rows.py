"""Training rows for tests: small synthetic programs whose speed follows a rule."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import torch

from coordinator.costmodel.arrays import RowArrays
from coordinator.costmodel.dataset import TrainingRow
from coordinator.costmodel.model import CostModel, ModelConfig
from tunefleet.features import HARDWARE_FEATURES, PROGRAM_FEATURES_PER_STORE
from tunefleet.trials import Verdict

VECTOR_LENGTH = 18
PARALLEL_EXTENT = 39

_KNOWN_HARDWARE = {
    "target_simd_bits": 256.0,
    "target_cores": 2.0,
    "l1d_bytes": 32768.0,
    "l2_bytes": 1048576.0,
    "gflops_all_cores": 200.0,
    "is_x86_64": 1.0,
}


def hardware(**changes: float) -> list[float]:
    """Return a hardware vector in which most values are unknown."""
    values = {**_KNOWN_HARDWARE, **changes}
    return [values.get(name, math.nan) for name in HARDWARE_FEATURES]


def tile_trace(*factors: int) -> str:
    """Make the trace of a schedule that splits a loop by each factor, the inner loops of 4."""
    instructions: list[list[object]] = [
        ["GetSBlock", [], ["matmul", "main"], ["b0"]],
        ["GetLoops", ["b0"], [], [f"l{n}" for n in range(len(factors))]],
    ]
    decisions = []
    for n, factor in enumerate(factors):
        drawn = [f"v{n}a", f"v{n}b"]
        decisions.append([len(instructions), [factor, 4]])
        instructions.append(["SamplePerfectTile", [f"l{n}"], [2, 64], drawn])
        split = [f"l{n}", *drawn]
        instructions.append(["Split", split, [True, False], [f"l{n}a", f"l{n}b"]])
    return json.dumps([instructions, decisions])


def fitted(arrays: RowArrays, config: ModelConfig | None = None, seed: int = 0) -> CostModel:
    """Make a model that guesses, its inputs normalised for the rows."""
    torch.manual_seed(seed)
    model = CostModel(config or ModelConfig())
    inputs = (torch.from_numpy(part) for part in arrays.padded(np.arange(len(arrays))))
    log_latency = torch.from_numpy(arrays.log_latency.astype(np.float32))
    model.fit_normalisation(*inputs, log_latency)
    return model.eval()


def synthetic_rows(
    seed: int, tasks: int = 4, per_task: int = 60, failures: int = 3, **device: float
) -> list[TrainingRow]:
    """Make trials that are faster the longer their vectors and the more parallel their loops."""
    rng = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        for number in range(per_task):
            stores = int(rng.integers(1, 4))
            features = rng.normal(5.0, 2.0, (stores, PROGRAM_FEATURES_PER_STORE))
            speed = features[:, VECTOR_LENGTH].sum() + 0.5 * features[:, PARALLEL_EXTENT].sum()
            name = hashlib.sha256(f"{seed}/{task}/{number}".encode()).hexdigest()[:16]
            failed = number < failures
            rows.append(
                TrainingRow(
                    workload=f"{task:016x}",
                    target='{"kind":"llvm","num-cores":2}',
                    device_fingerprint="d" * 16,
                    hardware=hardware(**device),
                    candidate=name,
                    stores=stores,
                    features=features.astype("<f4").tobytes(),
                    latency_s=None if failed else float(1e-3 * np.exp(-0.1 * speed)),
                    noise=math.nan if failed else 0.01,
                    verdict=Verdict.BUILD_ERROR if failed else Verdict.OK,
                )
            )
    return rows
