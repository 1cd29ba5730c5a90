"""The feature schema: what a cost model is fed, in which order, under which version.

Values are raw. All normalisation lives in the model's ONNX graph, so an agent never needs to know
it. A value that is not known is NaN, and the graph turns it into a flag.
"""

from __future__ import annotations

import hashlib
import json
import math

from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.targets import target_cores, target_simd_bits

PROGRAM_FEATURES_PER_STORE = 172
"""Values TVM's ``PerStoreFeature(extract_workload=True)`` gives for each buffer store."""

MAX_STORES = 32
"""Stores of one program a model looks at; programs with more keep their first ones."""

MAX_ROWS = 1 + MAX_STORES
"""Rows of one program a model is fed: first its schedule (:mod:`tunefleet.schedules.row`), then its
stores. Trials keep the stores only: the schedule's row follows from their trace."""

HARDWARE_FEATURES: tuple[str, ...] = (
    "target_simd_bits",
    "target_cores",
    "device_simd_bits",
    "logical_cores",
    "physical_cores",
    "l1d_bytes",
    "l2_bytes",
    "l3_bytes",
    "cache_line_bytes",
    "clock_max_mhz",
    "memory_bytes",
    "gflops_single_core",
    "gflops_all_cores",
    "bandwidth_l1_gbs",
    "bandwidth_l2_gbs",
    "bandwidth_l3_gbs",
    "bandwidth_memory_gbs",
    "bandwidth_memory_all_cores_gbs",
    "parallel_launch_us",
    "is_x86_64",
    "is_aarch64",
)
"""Names of the hardware vector's values, in order. Units are in the names."""

SCHEMA_VERSION = 2
"""Raise it whenever the same program is described by other values. 2: a row for the schedule."""


STORES_VERSION = 1
"""Raise it, and the one above, whenever a buffer store is described by other values: what trials
keep is of no use then. A change of what follows from a trace, or of how values are put together,
leaves kept trials as good as they were."""


def schema_digest() -> str:
    """Return 16 hex digits that name this schema; a model carries the digits it was made for."""
    return _digest({"version": SCHEMA_VERSION, "rows": MAX_ROWS})


def stores_digest() -> str:
    """Return 16 hex digits that name what trials keep of it; a dataset carries them."""
    return _digest({"version": STORES_VERSION})


def _digest(schema: dict[str, int]) -> str:
    described = {"per_store": PROGRAM_FEATURES_PER_STORE, "hardware": HARDWARE_FEATURES, **schema}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def hardware_vector(profile: DeviceProfile, target: str) -> list[float]:
    """Describe a device, used through a target, to a cost model.

    Args:
        profile: the device.
        target: a canonical target; it may use less of the device than there is.

    Returns:
        ``len(HARDWARE_FEATURES)`` raw values in that order; unknown ones are NaN.
    """
    measured = profile.measured or MeasuredProfile()
    known: dict[str, float | int | None] = {
        "target_simd_bits": target_simd_bits(target, profile),
        "target_cores": target_cores(target),
        "device_simd_bits": profile.simd_bits,
        "is_x86_64": float(profile.arch in {"x86_64", "AMD64"}),
        "is_aarch64": float(profile.arch in {"aarch64", "arm64"}),
    }
    values: list[float] = []
    for name in HARDWARE_FEATURES:
        if name in known:
            value = known[name]
        elif hasattr(profile, name):
            value = getattr(profile, name)
        else:
            value = getattr(measured, name)
        values.append(math.nan if value is None else float(value))
    return values
