"""Cost models by the Python client: fetched whole and checked, sent, promoted, rolled back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from in_memory_fleet import InMemoryFleet, serving

from tunefleet.client import Reason, TuneFleet, TuneFleetError
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE
from tunefleet.v1 import campaign_pb2, user_service_pb2

CONTENT = {ONNX_FILE: b"onnx" * 1000, CHECKPOINT_FILE: b"weights" * 1000}


@pytest.fixture
def served() -> Iterator[tuple[InMemoryFleet, TuneFleet]]:
    state = InMemoryFleet()
    with serving(state) as address, TuneFleet(address) as fleet:
        yield state, fleet


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
    return folder


def add_version(state: InMemoryFleet, *names: str) -> None:
    """Let the coordinator have a version v3 with these files."""
    state.models.append(
        user_service_pb2.ModelVersion(version="v3", parent="v2", metrics={"pca_heldout": 0.8})
    )
    artifacts = []
    for name in names:
        digest = hashlib.sha256(CONTENT[name]).hexdigest()
        state.blobs[digest] = CONTENT[name]
        size = len(CONTENT[name])
        artifacts.append(campaign_pb2.Artifact(path=name, digest=digest, size_bytes=size))
    state.model_files["v3"] = artifacts


def test_a_version_is_fetched_with_what_is_known_of_it(served, tmp_path):
    state, fleet = served
    add_version(state, ONNX_FILE, CHECKPOINT_FILE)
    told = []
    exported = fleet.export_model("v3", tmp_path / "out", progress=lambda *step: told.append(step))
    assert [path.name for path in exported.files] == [ONNX_FILE, CHECKPOINT_FILE, ABOUT_FILE]
    for name, content in CONTENT.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    about = json.loads((tmp_path / "out" / ABOUT_FILE).read_text())
    assert (about["name"], about["parent"]) == ("v3", {"name": "v2"})
    assert about["metrics"] == {"pca_heldout": {"value": 0.8}}
    assert about["trained_on"] is None
    assert told[-1] == (11_000, 11_000)


def test_files_that_the_coordinator_has_lost_are_named(served, tmp_path):
    state, fleet = served
    add_version(state, ONNX_FILE)
    with pytest.raises(TuneFleetError, match=CHECKPOINT_FILE) as caught:
        fleet.export_model("v3", tmp_path / "out")
    assert caught.value.reason is Reason.BLOB_UNKNOWN
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(served, model):
    state, fleet = served
    add_version(state, ONNX_FILE, CHECKPOINT_FILE)
    with pytest.raises(TuneFleetError, match="not empty") as caught:
        fleet.export_model("v3", model)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert not (model / ABOUT_FILE).exists()


def test_a_model_is_sent_with_a_line_that_says_what_it_is(served, model):
    state, fleet = served
    about = {"name": "mine\n\x1b[31m", "trained_on": [{"name": "far"}, {"name": "near"}]}
    (model / ABOUT_FILE).write_text(json.dumps(about))
    told, steps = [], []
    made = fleet.upload_model(
        model, progress=lambda *step: told.append(step), activity=lambda *s: steps.append(s)
    )
    assert made.version == "u1"
    [request] = state.model_requests
    assert request.description == "mine[31m, trained on far, near"
    assert state.blobs[request.digest] == CONTENT[ONNX_FILE]
    assert state.blobs[request.checkpoint_digest] == CONTENT[CHECKPOINT_FILE]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (11_000, 11_000)
    assert (0.5, "checking") in steps


@pytest.mark.parametrize(
    "content", [None, "[]", "{", '{"name": 7}', '{"name": "a", "trained_on": 1}']
)
def test_a_model_that_says_nothing_of_itself_goes_by_its_folder(served, model, content):
    state, fleet = served
    if content is not None:
        (model / ABOUT_FILE).write_text(content)
    fleet.upload_model(model)
    assert len(state.model_requests[0].description) < 20


def test_a_refusal_has_its_reason(served, model):
    _, fleet = served
    (model / CHECKPOINT_FILE).write_bytes(CONTENT[ONNX_FILE])
    with pytest.raises(TuneFleetError, match="one file") as caught:
        fleet.upload_model(model)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert caught.value.hint.endswith("(sent)")


@pytest.mark.parametrize("name", [ONNX_FILE, CHECKPOINT_FILE])
def test_half_a_model_is_not_sent(served, model, name):
    state, fleet = served
    (model / name).unlink()
    with pytest.raises(TuneFleetError, match=name) as caught:
        fleet.upload_model(model)
    assert caught.value.reason is Reason.MODEL_INVALID
    assert state.uploads == 0


def test_going_back_names_the_version_that_is_in_use(served):
    state, fleet = served
    state.models += [
        user_service_pb2.ModelVersion(version="v2", current=True),
        user_service_pb2.ModelVersion(version="v1"),
    ]
    assert fleet.roll_back_model().version == "v1"
    # Naming it keeps a call that is repeated from going further back.
    assert [request.version for request in state.model_requests] == ["v2"]
    assert [m.rolled_back for m in fleet.models()] == [True, False]
