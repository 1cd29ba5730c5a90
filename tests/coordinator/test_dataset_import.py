"""Datasets on their way in: through a real coordinator, with its real jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from store_samples import KEY, NOW, PROFILE, TARGET, campaign, device, lease, task, trial

from coordinator.dataset.export_job import export_dataset
from coordinator.server.app import Wiring, serve
from coordinator.server.core import Core, ServerConfig
from coordinator.state.blobs import BlobStore
from coordinator.state.records import CampaignState
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from coordinator.state.trial_records import TrialFilter, TrialRecord
from coordinator.wiring import wire
from tunefleet.client import TuneFleet
from tunefleet.client.datasets import import_result
from tunefleet.errors import Reason, TuneFleetError

MODULE = b'{"the": "module"}'


def elsewhere(folder: Path, *numbers: int, features: bool = True) -> Path:
    """Export some trials of another coordinator's; returns the folder."""
    url = f"sqlite:///{folder / 'far.db'}"
    blobs = BlobStore(folder / "far-blobs")
    store = open_store(url)
    store.put_device(device("far"))
    store.create_campaign(campaign("c-far"), "")
    known = replace(task(), workload_digest=blobs.put(MODULE), sources={"resnet50": 2})
    store.add_tasks("c-far", [known])
    store.grant_lease(lease("l-far", device_id="id-far", campaign_id="c-far"))
    store.ingest_trials("id-far", "l-far", 1, [trial(n, "l-far") for n in numbers], NOW)
    store.close()
    return elsewhere_again(folder, features=features)


def elsewhere_again(folder: Path, *, features: bool = True) -> Path:
    """Export what the other coordinator has."""
    spec = {
        "database_url": f"sqlite:///{folder / 'far.db'}",
        "blobs_dir": str(folder / "far-blobs"),
        "out_dir": str(folder / "out"),
        "campaign_ids": [],
        "targets": [],
        "device_ids": [],
        "features": features,
    }
    export_dataset(spec, lambda *_: None)
    return folder / "out"


@dataclass
class Running:
    """A coordinator and a way to import into it."""

    address: str
    store: Store
    home: Path

    async def take(self, place: Path, **options: Any) -> dict[str, Any]:
        """Import a dataset and return what came of it."""

        def run() -> dict[str, Any]:
            with TuneFleet(self.address) as fleet:
                importing = fleet.import_dataset(place, **options)
                importing.wait(timeout_s=60)
                return import_result(importing)

        return await asyncio.to_thread(run)

    def records(self) -> list[TrialRecord]:
        return list(self.store.trial_records(TrialFilter()))


@asynccontextmanager
async def coordinator(home: Path) -> AsyncIterator[Running]:
    """Run a whole coordinator, without agents."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, cores = asyncio.Event(), list[Core]()

    def remember(core: Core) -> Wiring:
        cores.append(core)
        return wire(core)

    config = ServerConfig(home, "127.0.0.1:0")
    running = asyncio.create_task(serve(config, remember, ready=ready.set_result, stop=stop))
    yield Running(await ready, cores[0].store, home)
    stop.set()
    await running


async def test_trials_come_in_whole_under_their_own_hardware(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1, 2)
    async with coordinator(tmp_path / "home") as here:
        result = await here.take(place)
        assert (result["new"], result["known"], result["rejected"]) == (2, 0, 0)
        assert here.records() == [
            TrialRecord(KEY, "id-far", "c-far", "conv2d", {"resnet50": 2}, trial(n, "l-far"))
            for n in (1, 2)
        ]
        [importing] = here.store.list_campaigns()
        assert importing.state is CampaignState.DONE
        [progress] = here.store.task_progress(importing.campaign_id)
        assert (progress.trials, progress.best_s) == (2, 1e-3)
        digest = progress.task.workload_digest
    assert BlobStore(tmp_path / "home" / "blobs").read(digest) == MODULE


async def test_a_workload_keeps_every_network_it_comes_from(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    far = open_store(f"sqlite:///{tmp_path / 'far.db'}")
    far.create_campaign(campaign("c-far2"), "")
    far.add_tasks("c-far2", [replace(task(), sources={"vgg19": 1})])
    far.close()
    elsewhere_again(tmp_path)
    async with coordinator(tmp_path / "home") as here:
        await here.take(place)
        [workload] = here.store.list_workloads()
    assert workload.sources == {"resnet50": 2, "vgg19": 1}


async def test_a_foreign_device_is_listed_apart_and_never_chosen(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    async with coordinator(tmp_path / "home") as here:
        await here.take(place)

        def look() -> tuple[list[str], list[tuple[str, str]]]:
            with TuneFleet(here.address) as fleet:
                usual = [d.name for d in fleet.devices()]
                imported = [(d.name, str(d.state)) for d in fleet.devices(imported=True)]
                assert fleet.device("far").profile == PROFILE
                (tmp_path / "model.onnx").write_bytes(b"x")
                with pytest.raises(TuneFleetError) as raised:
                    fleet.tune(tmp_path / "model.onnx", devices="name=far")
                assert raised.value.reason is Reason.NO_DEVICE_MATCHES
                return usual, imported

        assert await asyncio.to_thread(look) == ([], [("far", "imported")])


async def test_importing_again_changes_nothing(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1, 2)
    async with coordinator(tmp_path / "home") as here:
        await here.take(place)
        before = here.records()
        result = await here.take(place)
        assert (result["new"], result["known"], result["rejected"]) == (0, 2, 0)
        assert here.records() == before
        assert here.store.get_device("far").trials == 2


async def test_bad_rows_are_counted_and_named_and_the_rest_comes_in(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1, 2, 3)
    table = pq.read_table(place / "trials.parquet")
    build_s = pa.array([None, -1.0, float("nan")])
    at = table.column_names.index("build_s")
    pq.write_table(table.set_column(at, "build_s", build_s), place / "trials.parquet")
    async with coordinator(tmp_path / "home") as here:
        result = await here.take(place)
        assert [r.trial.candidate for r in here.records()] == [trial(1).candidate]
    assert (result["new"], result["rejected"]) == (1, 2)
    assert result["refusals"] == {"build_s is -1.0 s": 1, "build_s is nan": 1}
    assert set(result["rejected_names"]) == {trial(n, "l-far").trial_id for n in (2, 3)}


async def test_own_devices_are_not_changed_by_a_file(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    async with coordinator(tmp_path / "home") as here:
        mine = device("far", profile=replace(PROFILE, logical_cores=64))
        here.store.put_device(mine)
        result = await here.take(place)
        assert here.store.get_device("far") == mine
    assert list(result["refusals"]) == ["its device registered here, but never with that hardware"]


async def test_a_device_whose_name_is_taken_comes_in_under_another(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    async with coordinator(tmp_path / "home") as here:
        here.store.put_device(device("far", device_id="id-mine"))
        await here.take(place)
        assert here.store.get_device("id-far").name == "far-id-far"


async def test_trials_alone_are_a_dataset_too(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    async with coordinator(tmp_path / "home") as here:
        result = await here.take(place / "trials.parquet")
        assert (result["new"], result["without_module"]) == (1, 1)
        assert here.store.get_device("id-far").imported


def other_schema(place: Path) -> None:
    """Let the trials say that their features are of another schema."""
    path = place / "trials.parquet"
    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"tunefleet.feature_schema": b"0" * 16}
    pq.write_table(table.replace_schema_metadata(metadata), path)


async def test_features_of_another_schema_are_refused_with_what_to_do(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    other_schema(place)
    async with coordinator(tmp_path / "home") as here:
        with pytest.raises(TuneFleetError, match="--featurize") as raised:
            await here.take(place)
        assert raised.value.reason is Reason.DATASET_INVALID
        assert here.records() == []


async def test_a_truncated_file_fails_the_import_with_its_reason(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    path = place / "trials.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    async with coordinator(tmp_path / "home") as here:
        with pytest.raises(TuneFleetError, match="not a whole Parquet file") as raised:
            await here.take(place)
        assert raised.value.reason is Reason.DATASET_INVALID


async def test_a_folder_without_files_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with TuneFleet("127.0.0.1:1") as fleet, pytest.raises(TuneFleetError) as raised:
        fleet.import_dataset(tmp_path)
    assert raised.value.reason is Reason.DATASET_INVALID


async def test_a_device_and_target_are_for_metaschedule_alone(tmp_path: Path) -> None:
    place = elsewhere(tmp_path, 1)
    async with coordinator(tmp_path / "home") as here:
        with pytest.raises(TuneFleetError, match="says itself") as raised:
            await here.take(place, device="far", target=TARGET)
        assert raised.value.reason is Reason.INVALID_ARGUMENT
