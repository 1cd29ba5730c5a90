"""A coordinator's home with something of everything in it, and whether it is sound afterwards."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from coordinator.state.blobs import BlobStore
from coordinator.state.database import Database
from coordinator.state.home import Home
from coordinator.state.ranking import fastest_first
from coordinator.state.records import (
    ArtifactRecord,
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DeviceRecord,
    GroupRecord,
    LeaseKind,
    LeaseRecord,
    TaskKey,
    TaskRecord,
)
from coordinator.state.rows import unpack
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.tables import record_sets
from coordinator.state.trial_records import TrialFilter
from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.families import FAMILIES
from tunefleet.features import PROGRAM_FEATURES_PER_STORE, schema_digest
from tunefleet.lease_conversions import lease_to_proto
from tunefleet.leases import BenchmarkSpec, BenchmarkSubject, Lease, RoundSpec, Work
from tunefleet.trials import ProgramFeatures, Trial, Verdict, trial_id

TARGET = '{"kind":"llvm","mcpu":"znver4","num-cores":2}'
DEVICES = ("fuzz-1", "fuzz-2", "fuzz-3")
_LEASE_S = 365 * 86400.0
"""The seeded leases outlive any run."""
_TASKS = 6
RECORDS, WORKLOADS = "database_tuning_record.json", "database_workload.json"

_INVARIANTS = {
    "trials without their schedule": "SELECT count(*) FROM trials LEFT JOIN trial_payloads ON "
    "trial_payloads.trial_seq = trials.seq WHERE trial_payloads.trial_seq IS NULL",
    "schedules without their trial": "SELECT count(*) FROM trial_payloads LEFT JOIN trials ON "
    "trial_payloads.trial_seq = trials.seq WHERE trials.seq IS NULL",
    "devices that count other trials than they have": "SELECT count(*) FROM devices WHERE trials "
    "!= (SELECT count(*) FROM trials WHERE trials.device_id = devices.device_id)",
    "leases that count other trials than they have": "SELECT count(*) FROM leases WHERE kind != "
    "'import' AND trials != (SELECT count(*) FROM trials WHERE trials.lease_id = leases.lease_id)",
    "tasks that count other trials than they have": "SELECT count(*) FROM tasks WHERE trials != "
    "(SELECT count(*) FROM trials WHERE trials.campaign_id = tasks.campaign_id AND "
    "trials.record_set_id = tasks.record_set_id)",
    "tasks that count other latencies than they have": "SELECT count(*) FROM tasks WHERE measured "
    "!= (SELECT count(latency_s) FROM trials WHERE trials.campaign_id = tasks.campaign_id AND "
    "trials.record_set_id = tasks.record_set_id)",
    "devices with two active leases": "SELECT count(*) FROM (SELECT device_id FROM leases WHERE "
    "state = 'active' GROUP BY device_id HAVING count(*) > 1)",
    "numbers that are none": "SELECT count(*) FROM trials WHERE typeof(latency_s) NOT IN "
    "('real', 'null') OR latency_s <= 0 OR latency_s > 1e9",
}


def profile() -> DeviceProfile:
    """Make the profile that all devices share."""
    return DeviceProfile(
        arch="x86_64",
        cpu_model="Some CPU",
        isa_features=("avx2", "fma"),
        simd_bits=256,
        logical_cores=2,
        memory_bytes=8 * 2**30,
        measured=MeasuredProfile(gflops_single_core=50.0),
    )


def prepare(home: Home) -> dict[str, list[Any]]:
    """Fill a home, and return what is known of it as pools of values by field name."""
    home.create()
    blobs = BlobStore(home.blobs_dir)
    digests = [blobs.put(content) for content in (b"not a model", b"{}", b"\0" * 300_000)]
    store = open_store(home.database_url)
    try:
        now = time.time()
        fingerprint = profile().fingerprint()
        for name in DEVICES:
            store.put_device(DeviceRecord(name, name, profile(), TARGET, {"site": "lab"}, "1", now))
        keys = [TaskKey(f"{n:016x}", TARGET, fingerprint) for n in range(1, _TASKS + 1)]
        for number, state in enumerate(CampaignState, 1):
            store.create_campaign(_campaign(f"c-{number}", state, digests, fingerprint, now), "")
            tasks = [
                TaskRecord(key, "conv2d", 1, 1e9, digests[1], sources={"net": 1}) for key in keys
            ]
            store.add_tasks(f"c-{number}", tasks)
        tuning = f"c-{list(CampaignState).index(CampaignState.TUNING) + 1}"
        leases = [
            _grant(
                store, DEVICES[0], tuning, RoundSpec(keys[0].workload, digests[1], TARGET, 8, 1)
            ),
            _grant(store, DEVICES[1], tuning, _benchmark(digests)),
        ]
        store.ingest_trials(
            DEVICES[0], leases[0].lease_id, leases[0].fencing_token, list(_trials(leases[0])), now
        )
    finally:
        store.close()
    return _pools(digests, leases)


def _pools(digests: list[str], leases: list[LeaseRecord]) -> dict[str, list[Any]]:
    campaigns = [f"c-{n}" for n in range(1, len(CampaignState) + 1)]
    return {
        "leases": [(lease.device_id, lease.lease_id, lease.fencing_token) for lease in leases],
        "device_id": list(DEVICES),
        "device": list(DEVICES),
        "devices": list(DEVICES),
        "selector": ["", "name=fuzz-*", "site=lab,arch!=x", "target.mcpu=znver4"],
        "device_selector": ["", "name=fuzz-*", "site=lab"],
        "campaign_id": campaigns,
        "campaigns": campaigns,
        "digest": digests,
        "digests": digests,
        "model_digest": digests[:1],
        "checkpoint_digest": digests[:1],
        "offset": [0, 1, 1000],
        "target": [TARGET, "llvm -mcpu=znver4"],
        "targets": [TARGET, "llvm"],
        "arch": ["x86_64", "aarch64"],
        "feature_schema": [schema_digest()],
        "families": list(FAMILIES),
        "path": ["trials.parquet", "workloads.parquet", RECORDS, WORKLOADS],
        "CampaignSpec.purpose": [0, 1, 2, 3, 4, 5],
        "Trial.trial_id": [f"{n:032x}" for n in range(2000)],
        "Trial.candidate": [f"{n:016x}" for n in range(1, 50)],
        "FeaturizedTrace.candidate": [f"{n:016x}" for n in range(1, 50)],
        "Trial.trace": ["[[],[]]", '[[["Primitive",[],[],[]]],[]]'],
        "ProgramFeatures.stores": [1],
        "ProgramFeatures.data": [bytes(4 * PROGRAM_FEATURES_PER_STORE)],
    }


def _campaign(
    name: str, state: CampaignState, digests: list[str], fingerprint: str, now: float
) -> CampaignRecord:
    ended = now if state.ended else None
    compiled = {"tuned": digests[0], "untuned": digests[0]} if state.ended else {}
    return CampaignRecord(
        campaign_id=name,
        spec=CampaignSpec(
            name=f"model-{name}",
            model_digest=digests[0],
            model_filename="model.onnx",
            # Whoever imports waits for its devices.
            device_selector="name=nobody" if state is CampaignState.IMPORTING else "",
            purpose=CampaignPurpose.TUNE,
        ),
        state=state,
        created_at_unix_s=now,
        ended_at_unix_s=ended,
        trials_wanted=10_000_000,
        groups=(GroupRecord(TARGET, fingerprint, digests[1], digests[1], compiled=compiled),),
        artifacts=(ArtifactRecord("report.json", digests[1], 2),) if state.ended else (),
    )


def _benchmark(digests: list[str]) -> BenchmarkSpec:
    subjects = (BenchmarkSubject("tuned", "tvm", digests[0]),)
    return BenchmarkSpec(TARGET, subjects, digests[0], digests[0], threads=1)


def _grant(store: Store, device_id: str, campaign_id: str, work: Work) -> LeaseRecord:
    token = store.next_fencing_token()
    now = time.time()
    is_round = isinstance(work, RoundSpec)
    lease = Lease(f"l-{token}", token, _LEASE_S, campaign_id, work)
    record = LeaseRecord(
        lease_id=lease.lease_id,
        fencing_token=token,
        device_id=device_id,
        campaign_id=campaign_id,
        kind=LeaseKind.ROUND if is_round else LeaseKind.BENCHMARK,
        target=TARGET,
        fingerprint=profile().fingerprint(),
        workload=work.workload if isinstance(work, RoundSpec) else "",
        message=lease_to_proto(lease).SerializeToString(),
        expires_at_unix_s=now + _LEASE_S,
        granted_at_unix_s=now,
    )
    store.grant_lease(record)
    return record


def _trials(lease: LeaseRecord) -> Iterator[Trial]:
    width = PROGRAM_FEATURES_PER_STORE
    for number in range(1, 9):
        candidate = f"{number:016x}"
        yield Trial(
            trial_id=trial_id(lease.lease_id, candidate, 0),
            lease_id=lease.lease_id,
            candidate=candidate,
            trace="[[],[]]" if number == 1 else '[[["Primitive",[],[],[]]],[]]',
            verdict=Verdict.OK,
            samples_s=(number / 1000, number / 990),
            features=ProgramFeatures(1, struct.pack(f"<{width}f", *[1.0] * width)),
        )


def unsound(home: Home) -> dict[str, int]:
    """Count what a home holds that is not whole, by what is wrong with it; nothing where all is."""
    found: dict[str, int] = {}
    with closing(sqlite3.connect(home.root / "tunefleet.db")) as connection:
        [integrity] = connection.execute("PRAGMA integrity_check").fetchone()
        found[f"database integrity: {integrity}"] = int(integrity != "ok")
        found["dangling references"] = len(
            connection.execute("PRAGMA foreign_key_check").fetchall()
        )
        for what, query in _INVARIANTS.items():
            found[what] = int(connection.execute(query).fetchone()[0])
        found |= _unreadable_payloads(connection)
    found["record sets whose best is not the fastest"] = _wrong_bests(home)
    found["rows that cannot be read"] = _unreadable_rows(home)
    found["blobs that are not what they are called"] = _wrong_blobs(home.blobs_dir)
    found["blobs left half-way"] = len(list((home.blobs_dir / "incoming").iterdir()))
    return {what: count for what, count in found.items() if count}


def _unreadable_payloads(connection: sqlite3.Connection) -> dict[str, int]:
    broken = 0
    for stores, features, trace in connection.execute(
        "SELECT stores, features, trace FROM trial_payloads"
    ):
        try:
            unpack(trace).decode()
            if features is not None:
                ProgramFeatures(stores, unpack(features)).check()
        except Exception:
            broken += 1
    return {"schedules or features that cannot be read": broken}


def _wrong_bests(home: Home) -> int:
    database = Database(home.database_url)
    with database.read() as connection:
        wrong = 0
        for row in connection.execute(select(record_sets)).mappings().all():
            best = fastest_first(connection, row["record_set_id"], 1)
            wrong += row["best_s"] != (best[0].latency_s if best else None)
    database.close()
    return wrong


def _unreadable_rows(home: Home) -> int:
    store = open_store(home.database_url)
    broken = 0
    try:
        for read in (
            store.list_devices,
            store.list_campaigns,
            store.list_leases,
            store.list_model_versions,
            store.list_profiles,
            lambda: list(store.count_trials_by_verdict(TrialFilter())),
        ):
            try:
                read()
            except Exception:
                broken += 1
    finally:
        store.close()
    return broken


def _wrong_blobs(folder: Path) -> int:
    return sum(
        hashlib.sha256(path.read_bytes()).hexdigest() != path.parent.name + path.name
        for path in folder.glob("??/*")
    )
