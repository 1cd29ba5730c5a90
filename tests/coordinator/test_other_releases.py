"""Cost models that another release made: whoever is given one says what it is, and what to do."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from model_folders import fill, untrained, write_dataset, write_model
from server_harness import Server, running_server
from store_samples import model

from coordinator.costmodel.feature_sets import STEPS, STORES
from tunefleet.cli.app import run
from tunefleet.cli.local_jobs import train_model
from tunefleet.errors import Reason
from tunefleet.model_files import CHECKPOINT_FILE, ONNX_FILE

OTHER = "0123456789abcdef"
ANEW = "Train it anew"


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "some")


@pytest.fixture(scope="module")
def models(ours: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of this release: for stores, and for steps."""
    place = tmp_path_factory.mktemp("models")
    write_model(place / "stores", untrained())
    train_model(ours, place / "steps", parent=None, seed=0, threads=1, epochs=1, features="steps")
    return place


def with_checkpoint(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """Change a checkpoint's meta and weights."""
    path = folder / CHECKPOINT_FILE
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(arrays.pop("meta").tobytes())
    change(meta, arrays)
    with path.open("wb") as out:
        np.savez(out, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8), **arrays)
    return folder


def of_other_schema(models: Path, name: str, place: Path) -> Path:
    """Copy a model as an older release wrote it: another schema, and settings of its own."""
    folder = shutil.copytree(models / name, place / f"old-{name}")
    graph = onnx.load(folder / ONNX_FILE)
    for entry in graph.metadata_props:
        if entry.key == "tunefleet.schema_digest":
            entry.value = OTHER
    onnx.save(graph, folder / ONNX_FILE)

    def change(meta: dict[str, Any], _weights: dict[str, Any]) -> None:
        meta["schema_digest"] = OTHER
        meta["config"]["of_before"] = meta["config"].pop("scheduled")

    return with_checkpoint(folder, change)


def with_other_weights(models: Path, place: Path) -> Path:
    """Copy a model whose network had another size, and a part that is no more."""
    folder = shutil.copytree(models / "stores", place / "resized")

    def change(_meta: dict[str, Any], weights: dict[str, Any]) -> None:
        weights["weight/position"] = weights["weight/position"][:, :-1]
        weights["weight/of_before"] = np.zeros(3, np.float32)

    return with_checkpoint(folder, change)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that cannot use a model; returns what it said, as one line."""
    assert run([str(argument) for argument in arguments]) == Reason.MODEL_INVALID.value.exit_code
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["stores", "steps"])
class TestAnotherSchema:
    def test_it_is_not_judged(
        self, name: str, models: Path, ours: Path, tmp_path: Path, capsys: Any
    ) -> None:
        old = of_other_schema(models, name, tmp_path)
        for command in (
            ("model", "evaluate", old, ours),
            ("model", "compare", models / name, old, ours),
        ):
            told = refused(capsys, *command)
            assert f"old-{name} is for features of schema {OTHER}, of another release" in told
            assert f"{STORES.schema()} (stores) or {STEPS.schema()} (steps)" in told
            assert ANEW in told

    def test_nothing_goes_on_from_it(
        self, name: str, models: Path, ours: Path, tmp_path: Path, capsys: Any
    ) -> None:
        old = of_other_schema(models, name, tmp_path)
        told = refused(capsys, "model", "train", ours, "--out", tmp_path / "out", "--from", old)
        assert f"features of schema {OTHER}, of another release" in told
        assert STORES.schema() in told
        assert f"{ANEW}, without --from" in told

    def test_it_does_not_prune(
        self, name: str, models: Path, ours: Path, tmp_path: Path, capsys: Any
    ) -> None:
        old = of_other_schema(models, name, tmp_path) / ONNX_FILE
        told = refused(capsys, "dataset", "prune", ours, tmp_path / "out", "--model", old)
        assert f"features of schema {OTHER}, of another release" in told
        assert f"wanted is {STORES.schema()} (stores)" in told


def test_nothing_goes_on_from_weights_of_another_network(
    models: Path, ours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = with_other_weights(models, tmp_path)
    told = refused(capsys, "model", "train", ours, "--out", tmp_path / "out", "--from", old)
    assert "weights are not those of this release's network: of_before is (3,)" in told
    assert "wanted is none, and 1 more" in told
    assert f"{ANEW}, without --from" in told


class TestAtTheCoordinator:
    @pytest.fixture
    async def server(self, tmp_path: Path) -> AsyncIterator[Server]:
        async with running_server(tmp_path / "home") as started:
            fill(started.core.store)
            yield started

    @staticmethod
    def stored(server: Server, folder: Path, *, promoted: bool) -> None:
        """Add a version as an earlier release of the coordinator did."""
        blobs, record = server.core.blobs, model("v1", promoted)
        changes = {
            "digest": blobs.put_file(folder / ONNX_FILE),
            "checkpoint_digest": blobs.put_file(folder / CHECKPOINT_FILE),
            "feature_schema": OTHER,
        }
        server.core.store.add_model_version(type(record)(**{**vars(record), **changes}))

    async def refused(self, server: Server, capsys: Any, *arguments: object) -> str:
        given = (*arguments, "--coordinator", server.address)
        return await asyncio.to_thread(refused, capsys, "model", *given)

    async def test_one_that_is_sent_is_refused(
        self, server: Server, models: Path, tmp_path: Path, capsys: Any
    ) -> None:
        for name in ("stores", "steps"):
            old = of_other_schema(models, name, tmp_path)
            told = await self.refused(server, capsys, "promote", old)
            assert f"is for features of schema {OTHER}, of another release" in told
            assert f"wanted is {STORES.schema()} (stores)" in told
            assert ANEW in told
        told = await self.refused(server, capsys, "promote", with_other_weights(models, tmp_path))
        assert "weights are not those of this release's network" in told
        told = await self.refused(server, capsys, "promote", models / "steps")
        assert "agents cannot rank with it" in told
        assert "Train one for agents" in told

    async def test_one_that_is_there_is_kept_and_not_used(
        self, server: Server, models: Path, ours: Path, tmp_path: Path, capsys: Any
    ) -> None:
        self.stored(server, of_other_schema(models, "stores", tmp_path), promoted=False)
        told = await self.refused(server, capsys, "promote", "v1")
        assert f"v1 is for features of schema {OTHER}, of another release" in told
        assert STORES.schema() in told
        assert ANEW in told
        told = await self.refused(server, capsys, "evaluate", "v1", ours)
        assert f"v1 is for features of schema {OTHER}" in told
        export = ["model", "export", "v1", str(tmp_path / "out"), "--coordinator", server.address]
        assert await asyncio.to_thread(run, export) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"v1 is for features of schema {OTHER}, of another release" in shown

    async def test_one_in_use_does_not_keep_a_new_one_out(
        self, server: Server, models: Path, tmp_path: Path
    ) -> None:
        self.stored(server, of_other_schema(models, "stores", tmp_path), promoted=True)
        promote = ["model", "promote", str(models / "stores"), "--coordinator", server.address]
        assert await asyncio.to_thread(run, promote) == 0
        current = server.core.store.current_model()
        assert current is not None
        assert (current.version, current.feature_schema) == ("u1", STORES.schema())
