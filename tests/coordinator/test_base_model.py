"""The base model that is shipped: whole, of this release, and in use from a fleet's first round."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.costmodel import check_job
from coordinator.costmodel.base_model import base_checkpoint, base_folder
from coordinator.main import main
from coordinator.server.bus import Bus
from coordinator.server.core import Core
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from coordinator.wiring import wire
from tunefleet.features import schema_digest
from tunefleet.model_files import ABOUT_FILE, CARD_FILE, CHECKPOINT_FILE, ONNX_FILE


def test_its_files_are_what_its_description_says() -> None:
    about = json.loads((base_folder() / ABOUT_FILE).read_text())
    assert about["name"] == "base"
    assert about["feature_schema"] == schema_digest()
    for name, file in about["files"].items():
        content = (base_folder() / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    card = (base_folder() / CARD_FILE).read_text()
    assert "## Licence" in card
    assert f"{about['metrics']['pca']['value']:.3f}" in card
    assert about["metrics"]["pca"]["low"] > 0.5, "it ranks no better than guessing"


def test_it_passes_what_others_models_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    paths = {"onnx": ONNX_FILE, "checkpoint": CHECKPOINT_FILE}
    spec = {key: str(base_folder() / name) for key, name in paths.items()}
    assert check_job.check_model(spec, lambda *_: None)["named"] == "base"
    assert base_checkpoint().version == "base"


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    home = Home(tmp_path / "home")
    home.create()
    store = open_store(home.database_url)
    yield Core(home, store, BlobStore(home.blobs_dir), Bus())
    store.close()


def test_a_new_coordinator_ranks_with_it(core: Core) -> None:
    wire(core)
    current = core.store.current_model()
    assert current is not None
    assert (current.version, current.trials) == ("base", 0)
    assert current.why.startswith("shipped with TuneFleet")
    assert current.metrics["pca_heldout"] > 0.5


def test_another_can_be_given_in_its_place(core: Core, tmp_path: Path) -> None:
    other = shutil.copytree(base_folder(), tmp_path / "other")
    wire(replace(core, base_model=other))
    current = core.store.current_model()
    assert current is not None
    assert (current.version, current.why) == (
        "base",
        f"given when the coordinator was started: {other}",
    )


def test_a_coordinator_can_begin_without(core: Core) -> None:
    wire(replace(core, base_model=None))
    assert core.store.list_model_versions() == []


def test_a_folder_that_holds_no_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--home", str(tmp_path / "home"), "--base-model", str(tmp_path)])
    assert f"{tmp_path} is no model's folder" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
