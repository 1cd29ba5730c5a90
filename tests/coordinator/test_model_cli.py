"""``tunefleet model`` against a real coordinator: versions fetched, sent, promoted, rolled back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from model_folders import fill, train_small, write_dataset, write_model
from server_harness import Server, running_server

from tunefleet.cli.app import run
from tunefleet.errors import Reason
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    lock = MachineLock(place / "lock")
    trained_on = [{"name": "far away", "digest": "0" * 16}]
    write_model(place / "good", train_small(lock), trained_on=trained_on, workloads=[])
    write_model(place / "bad", train_small(lock, upside_down=True))
    return place


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    async with running_server(tmp_path / "home") as started:
        fill(started.core.store)
        yield started


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the JSON object that a command printed; the server here logs to the same place."""
    out = capsys.readouterr().out
    return json.loads(out[out.index("{\n") :])


async def command(server: Server, *arguments: str) -> int:
    given = ["model", *arguments, "--coordinator", server.address]
    return await asyncio.to_thread(run, given)


async def test_models_come_are_judged_promoted_fetched_and_go(
    server: Server, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first needs not be better than any.
    assert await command(server, "promote", str(models / "good")) == 0
    shown = capsys.readouterr().out
    assert "is version u1 there" in shown
    assert "Agents rank with u1 from their next round on." in shown

    refused = await command(server, "promote", str(models / "bad"))
    assert refused == Reason.MODEL_RANKS_WORSE.value.exit_code
    said = capsys.readouterr()
    assert "u2 is not promoted: ranks worse: held-out PCA" in said.err
    assert "--force" in said.err
    assert await command(server, "promote", "u2", "--force", "--format", "json") == 0
    told = printed(capsys)["model"]
    assert (told["version"], told["current"], told["promoted"]) == ("u2", True, True)

    assert await command(server, "rollback") == 0
    shown = capsys.readouterr().out
    assert "Agents rank with u1" in shown
    assert "cost model rolled back" in shown, "the coordinator's log does not tell"
    assert await command(server, "list") == 0
    listed = capsys.readouterr().out
    assert "rolled back" in listed
    assert await command(server, "show", "u1") == 0
    assert "the first version; PCA" in capsys.readouterr().out
    again = await command(server, "rollback", "u2", "--format", "json")
    assert again == 0
    assert printed(capsys)["model"]["version"] == "u1"
    nothing = await command(server, "rollback")
    assert nothing == Reason.MODEL_VERSION_STATE.value.exit_code
    assert "only promoted one" in capsys.readouterr().err

    out = tmp_path / "fetched"
    assert await command(server, "export", "u1", str(out), "--format", "json") == 0
    told = printed(capsys)
    assert [Path(file).name for file in told["files"]] == [ONNX_FILE, CHECKPOINT_FILE, ABOUT_FILE]
    for name in (ONNX_FILE, CHECKPOINT_FILE):
        assert (out / name).read_bytes() == (models / "good" / name).read_bytes()
    about = json.loads((out / ABOUT_FILE).read_text())
    assert (about["name"], about["trained_on"]) == ("u1", None)
    assert about["metrics"]["pca_heldout"]["value"] > 0.9
    assert (
        await command(server, "export", "u1", str(out)) == Reason.INVALID_ARGUMENT.value.exit_code
    )
    assert "not empty" in capsys.readouterr().err
    missing = await command(server, "export", "v9", str(tmp_path / "new"))
    assert missing == Reason.MODEL_VERSION_UNKNOWN.value.exit_code
    assert not (tmp_path / "new").exists()


async def test_a_version_of_the_coordinators_is_fetched_to_be_judged(
    server: Server, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = write_dataset(tmp_path / "some")
    assert await command(server, "promote", str(models / "good")) == 0
    capsys.readouterr()
    evaluated = ["evaluate", "u1", str(dataset), "--format", "json"]
    assert await command(server, *evaluated) == 0
    told = printed(capsys)
    assert told["models"][0]["name"] == "u1"
    assert told["models"][0]["metrics"]["pca"]["value"] > 0.8
    assert "not known what u1 learned from" in told["notes"][0]
    assert await command(server, "compare", "u1", str(models / "bad"), str(dataset)) == 0
    assert "u1 is ahead of bad" in capsys.readouterr().out
    unknown = await command(server, "evaluate", "v9", str(dataset))
    assert unknown == Reason.MODEL_VERSION_UNKNOWN.value.exit_code


async def test_what_is_no_model_is_not_sent(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    invalid = Reason.MODEL_INVALID.value.exit_code
    assert await command(server, "promote", str(tmp_path / "empty")) == invalid
    assert "holds no model.onnx" in capsys.readouterr().err
    assert await command(server, "promote", str(tmp_path / "missing")) == invalid
    assert "no such file" in capsys.readouterr().err
    assert server.core.store.list_model_versions() == []
