"""Datasets over the wire: a real server, real jobs, the client that users have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from server_harness import Server, running_server
from store_samples import NOW, TARGET, campaign, device, lease, task, trial

from coordinator.dataset.reading import open_trials, read_trials
from tunefleet.client import TuneFleet
from tunefleet.client.datasets import ExportedDataset
from tunefleet.errors import Reason, TuneFleetError


def fill(server: Server) -> None:
    """Store two trials of one device and one of another."""
    store = server.core.store
    store.create_campaign(campaign(), "")
    store.add_tasks("c-1", [task()])
    for number, name in enumerate(("pi4", "twin"), 1):
        store.put_device(device(name))
        store.grant_lease(lease(f"l-{number}", number, f"id-{name}"))
        store.ingest_trials(
            f"id-{name}", f"l-{number}", number, [trial(number, f"l-{number}")], NOW
        )
        store.cancel_leases("c-1")


def candidates(exported: ExportedDataset) -> list[int]:
    [path] = [p for p in exported.files if p.name == "trials.parquet"]
    rows = [row for batch in read_trials(open_trials(path)) for row in batch]
    return sorted(int(record.trial.candidate, 16) for record, _ in rows)  # type: ignore[misc]


async def test_an_export_arrives_in_a_folder_and_says_how_far_it_is(tmp_path: Path) -> None:
    heard: list[str] = []
    async with running_server(tmp_path / "home") as server:
        fill(server)

        def run() -> ExportedDataset:
            with TuneFleet(server.address) as fleet:
                return fleet.export_dataset(
                    tmp_path / "out",
                    devices=["pi4"],
                    licence="CC-BY-4.0",
                    activity=lambda share, what: heard.append(what),
                )

        exported = await asyncio.to_thread(run)
        leftovers = list((tmp_path / "home" / "run").glob("export-*"))
    assert candidates(exported) == [1]
    assert exported.stats.trials == 1
    assert "counting trials" in heard
    assert "CC-BY-4.0" in (tmp_path / "out" / "README.md").read_text()
    assert leftovers == []


async def test_stored_trials_are_counted_all_or_some(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        fill(server)

        def run() -> tuple[int, int, int]:
            with TuneFleet(server.address) as fleet:
                everything = fleet.dataset_stats()
                spelled = fleet.dataset_stats(targets=["llvm -mcpu=znver4 -num-cores=2"])
                one = fleet.dataset_stats(campaigns=["squeezenet"], devices=["twin"])
                assert [g.name for g in everything.targets] == [TARGET]
                assert [(d.name, d.trials) for d in everything.devices] == [("pi4", 1), ("twin", 1)]
                return everything.trials, spelled.trials, one.trials

        assert await asyncio.to_thread(run) == (2, 2, 1)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"devices": ["nobody"]}, Reason.DEVICE_UNKNOWN),
        ({"campaigns": ["c-9"]}, Reason.CAMPAIGN_UNKNOWN),
        ({"targets": ["{"]}, Reason.INVALID_ARGUMENT),
        ({"targets": ["cuda"]}, Reason.DATASET_INVALID),
        ({"description": "x" * 20_000}, Reason.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, choice: dict[str, list[str]], reason: Reason
) -> None:
    async with running_server(tmp_path / "home") as server:
        fill(server)

        def run() -> None:
            with TuneFleet(server.address) as fleet:
                fleet.export_dataset(tmp_path / "out", **choice)  # type: ignore[arg-type]

        with pytest.raises(TuneFleetError) as raised:
            await asyncio.to_thread(run)
    assert raised.value.reason is reason
