"""When the coordinator trains, what it builds on, and what it does with what comes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from model_folders import fill, train_small, write_model
from store_samples import NOW, model

from coordinator.costmodel.registry import ModelRegistry
from coordinator.costmodel.supervisor import (
    FIRST_FINE_TUNING_TRIALS,
    FIRST_TRAINING_TRIALS,
    TrainingSupervisor,
)
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.machine_lock import MachineLock


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    made = Home(tmp_path / "home")
    made.create()
    return made


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    made = open_store(home.database_url)
    yield made
    made.close()


@pytest.fixture
def supervisor(store: Store, home: Home) -> TrainingSupervisor:
    return TrainingSupervisor(store, BlobStore(home.blobs_dir), home, clock=lambda: NOW)


async def test_the_first_training_goes_on_from_the_base_model(
    store: Store, home: Home, supervisor: TrainingSupervisor, tmp_path: Path
) -> None:
    lock = MachineLock(tmp_path / "lock")
    base = write_model(tmp_path / "base", train_small(lock, upside_down=True))
    ModelRegistry(store, BlobStore(home.blobs_dir), home).add_base(base)
    assert supervisor._trained_on() == 0, "what the base model learned from is not ours"
    fill(store)
    await supervisor._train()
    made = store.get_model_version("v1")
    assert (made.parent, made.trials) == ("base", 100)
    assert made.metrics["refit"] == 0
    assert made.metrics["pca_parent_heldout"] < 0.1
    assert made.promoted == (made.metrics["pca_heldout"] >= made.metrics["pca_parent_heldout"])
    current = store.current_model()
    assert current is not None
    assert current.version == "v1"
    assert supervisor._trained_on() == 100
    assert list(home.run_dir.glob("train-*")) == []


def test_fine_tuning_begins_later_than_training_anew(
    store: Store, supervisor: TrainingSupervisor
) -> None:
    assert supervisor._least() == FIRST_TRAINING_TRIALS
    store.add_model_version(model("v1"))
    assert supervisor._least() == FIRST_FINE_TUNING_TRIALS


def test_a_version_judged_against_one_that_is_not_current_any_more_is_not_promoted(
    store: Store, supervisor: TrainingSupervisor, home: Home, tmp_path: Path
) -> None:
    fill(store, trials=5)
    blobs = BlobStore(home.blobs_dir)
    checkpoint = blobs.put(b"weights")
    for name in ("v1", "v2"):
        store.add_model_version(replace(model(name), checkpoint_digest=checkpoint))
    task = supervisor._prepare("v3", tmp_path / "work")
    assert (task.parent, task.current) == ("v2", "v2")
    store.roll_back_model("v2", "slow")
    (tmp_path / "file").write_bytes(b"made of v2")
    result = {
        "onnx": str(tmp_path / "file"),
        "checkpoint": str(tmp_path / "file"),
        "promote": True,
        "why": "ranks no worse",
        "metrics": {"pca_heldout": 0.9, "pca_train": None},
    }
    record = supervisor._publish("v3", task, NOW, result)
    assert not record.promoted
    assert "v1 is the current version" in record.why
    assert store.get_model_version("v3") == record
    current = store.current_model()
    assert current is not None
    assert current.version == "v1"


def test_a_version_of_another_release_is_replaced_and_not_built_on(
    store: Store, supervisor: TrainingSupervisor, tmp_path: Path
) -> None:
    fill(store, trials=5)
    store.add_model_version(replace(model("v1"), feature_schema="0" * 16))
    task = supervisor._prepare("v2", tmp_path / "work")
    assert (task.parent, task.current, task.spec["parent_checkpoint"]) == ("", "v1", "")
