"""MetaSchedule databases in and out, written and read by TVM itself."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tvm
from store_samples import PROFILE, device
from test_dataset_import import Running, coordinator
from tvm import te
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms

from coordinator.models.tasks import workload_name
from tunefleet.client import TuneFleet
from tunefleet.client.datasets import ExportedDataset
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import BASELINE_TRACE
from tunefleet.targets import canonical_target
from tunefleet.trials import Verdict

pytestmark = pytest.mark.timeout(300)

TARGET = canonical_target("llvm -mcpu=x86-64-v3 -num-cores=2")
OTHER = canonical_target("llvm -mcpu=x86-64-v2 -num-cores=2")
BOX = device("box", target=TARGET)


def addition(size: int) -> Any:
    a = te.placeholder((size, 8), name="a")
    b = te.compute((size, 8), lambda i, j: a[i, j] + 1.0, name="b")
    return tvm.IRModule({"main": te.create_prim_func([a, b])})


def split(module: Any, factor: int) -> Any:
    """Schedule an addition; returns the schedule."""
    schedule = Schedule(module)
    loop, _ = schedule.get_loops(schedule.get_sblock("b"))
    schedule.split(loop, [None, factor])
    return schedule


def write(folder: Path, *records: tuple[Any, int, list[float], str]) -> Path:
    """Have MetaSchedule write a database of modules, split factors, seconds and targets."""
    folder.mkdir(exist_ok=True)
    database = ms.database.JSONDatabase(work_dir=str(folder))
    for module, factor, seconds, target in records:
        trace = split(module, factor).trace if factor else Schedule(module).trace
        database.commit_tuning_record(
            ms.database.TuningRecord(
                trace,
                database.commit_workload(module),
                seconds,
                tvm.target.Target(json.loads(target)),
                ms.arg_info.ArgInfo.from_entry_func(module, remove_preproc=True),
            )
        )
    return folder


async def take(here: Running, place: Path, name: str = "box", target: str = TARGET) -> Any:
    """Import a database and return what came of it, without waiting for features."""

    def begin() -> str:
        with TuneFleet(here.address) as fleet:
            started = fleet.import_dataset(
                place, dataset_format="metaschedule", device=name, target=target
            )
            return started.id

    campaign_id = await asyncio.to_thread(begin)
    for _ in range(2400):
        found = here.store.get_campaign(campaign_id)
        if found.state.ended or found.artifacts:
            break
        await asyncio.sleep(0.05)
    if found.error_reason:
        raise TuneFleetError(Reason[found.error_reason], found.error_message)
    assert found.artifacts, found
    blob = Path(here.home) / "blobs" / found.artifacts[0].digest[:2] / found.artifacts[0].digest[2:]
    return json.loads(blob.read_text())


async def test_records_become_trials_of_the_named_device_and_target(tmp_path: Path) -> None:
    small, large = addition(16), addition(64)
    place = write(
        tmp_path / "db",
        (small, 4, [2e-6, 3e-6, 4e-6], TARGET),
        (small, 0, [9e-6], TARGET),
        (large, 8, [5e-6], TARGET),
        (large, 2, [1e10], TARGET),
    )
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        result = await take(here, place)
        records = here.records()
        assert here.store.count_unfeatured(here.store.list_campaigns()[0].campaign_id) == 4
    assert (result["new"], result["rejected"], result["unfeatured"]) == (4, 0, 4)
    assert {(r.device_id, r.key.target, r.key.fingerprint) for r in records} == {
        (BOX.device_id, TARGET, PROFILE.fingerprint())
    }
    found = {(r.key.workload, r.trial.candidate): r.trial for r in records}
    split4 = found[workload_name(small), workload_name(split(small, 4).mod)]
    assert (split4.samples_s, split4.verdict) == ((2e-6, 3e-6, 4e-6), Verdict.OK)
    untuned = found[workload_name(small), workload_name(small)]
    assert untuned.trace == BASELINE_TRACE
    failed = found[workload_name(large), workload_name(split(large, 2).mod)]
    assert (failed.samples_s, failed.verdict) == ((), Verdict.RUNTIME_ERROR)


async def test_importing_a_database_again_changes_nothing(tmp_path: Path) -> None:
    place = write(tmp_path / "db", (addition(16), 4, [2e-6], TARGET))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        await take(here, place)
        result = await take(here, place)
        assert (result["new"], result["known"]) == (0, 1)
        assert len(here.records()) == 1


async def test_an_import_names_its_trials_whoever_brought_them_first(tmp_path: Path) -> None:
    small = addition(16)
    first = write(tmp_path / "first", (small, 4, [2e-6], TARGET))
    both = write(tmp_path / "both", (small, 4, [2e-6], TARGET), (small, 8, [3e-6], TARGET))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        await take(here, first)
        await take(here, both)
        [latest, _] = here.store.list_campaigns()
        stored = {record.trial.trial_id for record in here.records()}
        named = latest.artifacts[1]
        text = (here.home / "blobs" / named.digest[:2] / named.digest[2:]).read_text()
    assert named.path == "trials.txt"
    assert set(text.split()) == stored
    assert len(stored) == 2


async def test_a_record_for_another_target_stops_the_whole_import(tmp_path: Path) -> None:
    module = addition(16)
    place = write(
        tmp_path / "db",
        *[(module, factor, [2e-6], TARGET) for factor in (2, 4)],
        (module, 8, [2e-6], OTHER),
    )
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        with pytest.raises(TuneFleetError, match="record 3 was made for") as raised:
            await take(here, place)
        assert raised.value.reason is Reason.DATASET_INVALID
        assert here.records() == []


async def test_bad_records_are_named_and_the_others_come_in(tmp_path: Path) -> None:
    place = write(tmp_path / "db", (addition(16), 4, [2e-6], TARGET))
    path = place / "database_tuning_record.json"
    good = json.loads(path.read_text())
    trace = good[1][0]
    bad: list[Any] = [
        [7, good[1]],
        [-1, good[1]],
        [0, [trace, [-1.0], None, None]],
        [0, [[[["GetSBlock", [], ["nothing", "main"], ["b0"]]], []], [1e-6], None, None]],
        [0, ["no trace", [1e-6], None, None]],
        {"a": 1},
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in [*bad, good]))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        result = await take(here, place)
        assert len(here.records()) == 1
    assert result["rejected_names"] == [f"record {n}" for n in range(1, 7)]
    assert any("does not apply" in why for why in result["refusals"])


async def test_a_workload_that_cannot_be_read_costs_its_records_alone(tmp_path: Path) -> None:
    place = write(
        tmp_path / "db", (addition(16), 4, [2e-6], TARGET), (addition(64), 4, [2e-6], TARGET)
    )
    path = place / "database_workload.json"
    lines = path.read_text().splitlines()
    lines[0] = json.dumps(["1", "bm8gbW9kdWxl"])
    path.write_text("\n".join(lines))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        result = await take(here, place)
    assert (result["new"], result["rejected"]) == (1, 1)
    assert "its workload 0 cannot be read" in next(iter(result["refusals"]))


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("", TARGET, Reason.INVALID_ARGUMENT),
        ("box", "", Reason.INVALID_ARGUMENT),
        ("nobody", TARGET, Reason.DEVICE_UNKNOWN),
    ],
)
async def test_device_and_target_must_be_named(
    tmp_path: Path, name: str, target: str, reason: Reason
) -> None:
    place = write(tmp_path / "db", (addition(16), 4, [2e-6], TARGET))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        with pytest.raises(TuneFleetError) as raised:
            await take(here, place, name, target)
    assert raised.value.reason is reason


async def export(here: Running, folder: Path, **options: Any) -> ExportedDataset:
    def run() -> ExportedDataset:
        with TuneFleet(here.address) as fleet:
            return fleet.export_dataset(folder, dataset_format="metaschedule", **options)

    return await asyncio.to_thread(run)


async def test_an_export_is_a_database_that_tvm_queries(tmp_path: Path) -> None:
    small, large = addition(16), addition(64)
    place = write(
        tmp_path / "db",
        *[(small, factor, [factor * 1e-6], TARGET) for factor in (2, 4, 8)],
        (large, 8, [5e-6, 7e-6], TARGET),
        (large, 2, [1e10], TARGET),
    )
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        await take(here, place)
        exported = await export(here, tmp_path / "out", devices=["box"], targets=[TARGET], best=2)
    assert exported.stats.trials == 3
    database = ms.database.JSONDatabase(work_dir=str(tmp_path / "out"))
    assert len(database.get_all_tuning_records()) == 3
    best = database.query_tuning_record(small, tvm.target.Target(json.loads(TARGET)), "main")
    assert [float(s) for s in best.run_secs] == [2e-6]
    of_large = database.query_tuning_record(large, tvm.target.Target(json.loads(TARGET)), "main")
    assert [float(s) for s in of_large.run_secs] == [5e-6, 7e-6]


async def test_an_export_that_would_mix_is_refused(tmp_path: Path) -> None:
    place = write(tmp_path / "db", (addition(16), 2, [2e-6], TARGET))
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(BOX)
        await take(here, place)
        with pytest.raises(TuneFleetError, match="name one of each") as raised:
            await export(here, tmp_path / "out", devices=["box"])
        assert raised.value.reason is Reason.INVALID_ARGUMENT
        # The device's home has moved to another machine meanwhile.
        here.store.put_device(replace(BOX, profile=replace(PROFILE, logical_cores=64)))
        await take(here, place)
        with pytest.raises(TuneFleetError, match="would mix") as raised:
            await export(here, tmp_path / "out", devices=["box"], targets=[TARGET])
        assert raised.value.reason is Reason.DATASET_INVALID


async def test_a_folder_that_is_no_database_is_refused_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    with TuneFleet("127.0.0.1:1") as fleet, pytest.raises(TuneFleetError) as raised:
        fleet.import_dataset(tmp_path, dataset_format="metaschedule", device="a", target="llvm")
    assert raised.value.reason is Reason.DATASET_INVALID
    assert "database_workload.json" in raised.value.message
