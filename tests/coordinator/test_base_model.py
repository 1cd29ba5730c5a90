"""The base model that is shipped: whole, of this release, and in use from a fleet's first round."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from coordinator.costmodel import check_job
from coordinator.costmodel.base_model import base_checkpoint, base_folder
from coordinator.server.app import Core
from coordinator.server.bus import Bus
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
    monkeypatch.setattr(check_job, "limit", lambda _cpu_s: None)
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    paths = {"onnx": ONNX_FILE, "checkpoint": CHECKPOINT_FILE}
    spec = {key: str(base_folder() / name) for key, name in paths.items()}
    assert check_job.check_model(spec, lambda *_: None)["named"] == "base"
    assert base_checkpoint().version == "base"


def test_a_new_coordinator_ranks_with_it(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    store = open_store(home.database_url)
    try:
        wire(Core(home, store, BlobStore(home.blobs_dir), Bus()))
        current = store.current_model()
        assert current is not None
        assert (current.version, current.trials) == ("base", 0)
        assert current.metrics["pca_heldout"] > 0.5
    finally:
        store.close()
