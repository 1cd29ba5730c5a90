"""Kinds of hardware of a simulated fleet, and the campaign that gives all of it work."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import lru_cache

from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    GroupRecord,
    TaskKey,
    TaskRecord,
)
from coordinator.state.store import Store
from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.targets import canonical_target

DEVICES_A_KIND = 25
"""Devices of the same hardware: they share tasks, of which each is measured by one at a time."""

WORKLOADS = 64
"""Tasks for each kind of hardware: a network or two."""

CAMPAIGN = "c-fleet"


@dataclass(frozen=True)
class Hardware:
    """One kind."""

    profile: DeviceProfile
    target: str


def hardware_of(number: int) -> Hardware:
    """Return the hardware of a device by its number."""
    return _hardware(number // DEVICES_A_KIND)


@lru_cache
def _hardware(kind: int) -> Hardware:
    profile = DeviceProfile(
        arch="aarch64",
        cpu_model=f"Board {kind}",
        isa_features=("asimd", "asimddp", "fphp"),
        simd_bits=128,
        logical_cores=4,
        physical_cores=4,
        l1d_bytes=65536,
        l2_bytes=524288,
        l3_bytes=2097152,
        cache_line_bytes=64,
        clock_max_mhz=2400.0,
        memory_bytes=8 * 2**30,
        os_name="Debian GNU/Linux 12 (bookworm)",
        kernel="6.6.31-v8",
        libc="glibc 2.36",
        llvm_cpu="cortex-a76",
        versions={"tvm": "0.27.0", "onnxruntime": "1.31.0", "numpy": "2.4.0"},
        measured=MeasuredProfile(17.1, 66.2, 70.4, 41.3, 24.9, 7.8, 11.2, 8.4),
    )
    target = {"kind": "llvm", "mcpu": "cortex-a76", "mtriple": "aarch64-linux-gnu", "num-cores": 4}
    return Hardware(profile, canonical_target(json.dumps(target)))


def seed_campaign(store: Store, agents: int) -> None:
    """Put a collection into a store that is at rest until somebody resumes it.

    It has no end: every device can be given rounds for as long as the bench runs.
    """
    kinds = [_hardware(kind) for kind in range(-(-agents // DEVICES_A_KIND))]
    keys = [(kind.target, kind.profile.fingerprint()) for kind in kinds]
    spec = CampaignSpec(
        "fleet",
        "",
        "",
        purpose=CampaignPurpose.COLLECT,
        families=("conv2d",),
        workloads=WORKLOADS,
        trials_per_task=10_000,
    )
    record = CampaignRecord(
        CAMPAIGN,
        spec,
        CampaignState.PAUSED,
        time.time(),
        trials_wanted=WORKLOADS * 10_000,
        groups=tuple(GroupRecord(target, name, "1" * 64, "2" * 64) for target, name in keys),
    )
    store.create_campaign(record, "")
    store.add_tasks(
        CAMPAIGN,
        [
            TaskRecord(
                TaskKey(f"{workload + 1:016x}", target, name),
                f"conv2d_{workload}",
                weight=1 + workload % 3,
                flops=1e8 * (1 + workload % 7),
                workload_digest=f"{workload + 1:064x}",
                sources={"conv2d": 1},
            )
            for workload in range(WORKLOADS)
            for target, name in keys
        ],
    )
