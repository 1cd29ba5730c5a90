"""``tunefleet dataset`` as people see it, against a real coordinator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from rich.console import Console
from test_dataset_import import coordinator, elsewhere

from tunefleet.cli.app import run
from tunefleet.cli.dataset_tables import replay_sheet
from tunefleet.errors import Reason


async def command(address: str, *arguments: str) -> int:
    return await asyncio.to_thread(run, [*arguments, "--coordinator", address])


async def test_import_stats_and_export_tell_people_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = elsewhere(tmp_path, 1, 2)
    async with coordinator(tmp_path / "home") as here:
        assert await command(here.address, "dataset", "import", str(place)) == 0
        imported = capsys.readouterr().out
        assert await command(here.address, "dataset", "stats", "--device", "far") == 0
        counted = capsys.readouterr().out
        assert await command(here.address, "dataset", "export", str(tmp_path / "again")) == 0
        exported = capsys.readouterr().out
        assert await command(here.address, "devices", "list", "--imported") == 0
        listed = capsys.readouterr().out
    assert "new trials" in imported
    for told in ("llvm znver4, 2 threads", "resnet50", "1.00 ms", "2.00 ms", "Some CPU", "ok 2"):
        assert told in counted
    assert "trials.parquet" in exported
    assert str(tmp_path / "again") in exported
    assert "imported" in listed


def test_a_folder_is_counted_without_a_coordinator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = elsewhere(tmp_path, 1, 2, 3)
    assert run(["dataset", "stats", str(place)]) == 0
    assert "feature schema" in capsys.readouterr().out
    assert run(["dataset", "stats", str(place), "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["stats"]["trials"], told["rejected"]) == (3, 0)
    assert told["about"]["has_workloads"]


def test_a_folder_that_is_no_dataset_ends_with_its_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["dataset", "stats", str(tmp_path)]) == Reason.DATASET_INVALID.value.exit_code
    assert "holds no trials.parquet" in capsys.readouterr().err
    missing = str(tmp_path / "missing")
    assert run(["dataset", "stats", missing]) == Reason.DATASET_INVALID.value.exit_code
    assert run(["dataset", "stats", str(tmp_path), "--device", "a"]) == 2


def test_a_replays_comparison_fits_into_one_table() -> None:
    console = Console(width=160, record=True)
    group = {
        "target": '{"kind":"llvm","mcpu":"znver4"}',
        "fingerprint": "f" * 16,
        "same_hardware": True,
        "planned": 4,
        "compared": 3,
        "median_ratio": 1.0213,
        "share_within_5_percent": 2 / 3,
        "kendall_tau": None,
        "verdicts": {"ok": 3, "timeout": 1},
    }
    console.print(replay_sheet({"groups": [group]}))
    shown = console.export_text()
    for told in ("llvm znver4", "the same", "3 of 4", "1.021", "67%", " - ", "ok 3, timeout 1"):
        assert told in shown
