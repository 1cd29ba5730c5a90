"""Versions that come and go: uploads, promotions and rollbacks, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from model_folders import fill, train_small, untrained, write_model
from server_harness import Server, failure_of, running_server
from store_samples import NOW, device, model

from coordinator.campaigns.planner import LeasePlanner
from coordinator.costmodel.registry import ModelRegistry, next_name
from coordinator.server.bus import Bus
from coordinator.state.records import CampaignState, GroupRecord
from tunefleet.features import schema_digest
from tunefleet.leases import RoundSpec
from tunefleet.machine_lock import MachineLock
from tunefleet.model_files import ABOUT_FILE, CHECKPOINT_FILE, ONNX_FILE
from tunefleet.v1 import user_service_pb2 as pb


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three models: one that knows what is fast, one that guesses, one that has it upside down."""
    folder = tmp_path_factory.mktemp("models")
    lock = MachineLock(folder / "lock")
    return {
        "good": write_model(folder / "good", train_small(lock)),
        "guessing": write_model(folder / "guessing", untrained()),
        "bad": write_model(folder / "bad", train_small(lock, upside_down=True)),
    }


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setenv("TUNEFLEET_LOCK_DIR", str(tmp_path / "lock"))
    async with running_server(tmp_path / "home") as started:
        yield started


@pytest.fixture
def registry(server: Server) -> ModelRegistry:
    return ModelRegistry(server.core.store, server.core.blobs, server.core.home, lambda: NOW)


def stored(server: Server, name: str, folder: Path, *, promoted: bool = False) -> None:
    """Add a model as a version without checking it, as a training would."""
    blobs = server.core.blobs
    digests = [blobs.put_file(folder / file) for file in (ONNX_FILE, CHECKPOINT_FILE)]
    record = model(name, promoted)
    fields = {**vars(record), "digest": digests[0], "checkpoint_digest": digests[1]}
    server.core.store.add_model_version(type(record)(**fields))


async def promote(server: Server, version: str, *, force: bool = False) -> Any:
    """Return the last message of a promotion."""
    request = pb.PromoteModelVersionRequest(version=version, force=force)
    return [message async for message in server.models.PromoteModelVersion(request)][-1]


async def upload(server: Server, folder: Path, description: str = "") -> list[Any]:
    blobs = server.core.blobs
    request = pb.UploadModelVersionRequest(
        digest=blobs.put_file(folder / ONNX_FILE),
        checkpoint_digest=blobs.put_file(folder / CHECKPOINT_FILE),
        description=description,
    )
    return [message async for message in server.models.UploadModelVersion(request)]


def current(server: Server) -> str:
    found = server.core.store.current_model()
    return "" if found is None else found.version


class TestUploads:
    async def test_a_model_arrives_as_a_version_that_is_not_in_use(
        self, server: Server, models: dict[str, Path]
    ) -> None:
        steps = await upload(server, models["guessing"], "trained on nothing")
        made = steps[-1].model_version
        assert [s.model_version.version for s in steps[:-1]] == [""] * (len(steps) - 1)
        assert len(steps) > 2, "it said nothing of how far it was"
        assert (made.version, made.promoted, made.current, made.trials) == ("u1", False, False, 0)
        assert "trained on nothing" in made.why
        assert current(server) == ""
        again = (await upload(server, models["guessing"]))[-1].model_version
        assert again == made, "the same files are one version"

    async def test_what_does_not_belong_together_is_refused(
        self, server: Server, models: dict[str, Path], tmp_path: Path
    ) -> None:
        blobs = server.core.blobs
        request = pb.UploadModelVersionRequest(
            digest=blobs.put_file(models["good"] / ONNX_FILE),
            checkpoint_digest=blobs.put_file(models["bad"] / CHECKPOINT_FILE),
        )

        async def call() -> None:
            async for _ in server.models.UploadModelVersion(request):
                pass

        failure = await failure_of(call())
        assert failure.reason == "MODEL_INVALID"
        assert "cost model" in failure.hint
        assert server.core.store.list_model_versions() == []
        assert list(server.core.home.run_dir.glob("model-*")) == []

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"digest": "0" * 64}, "BLOB_UNKNOWN"),
            ({"checkpoint_digest": "../secret"}, "INVALID_ARGUMENT"),
            ({"description": "x" * 201}, "INVALID_ARGUMENT"),
            ({"description": "two\nlines"}, "INVALID_ARGUMENT"),
        ],
    )
    async def test_a_request_that_makes_no_sense_is_refused(
        self, server: Server, change: dict[str, str], reason: str
    ) -> None:
        blob = server.core.blobs.put(b"something")
        fields = {"digest": blob, "checkpoint_digest": blob} | change

        async def call() -> None:
            request = pb.UploadModelVersionRequest(**fields)
            async for _ in server.models.UploadModelVersion(request):
                pass

        assert (await failure_of(call())).reason == reason


class TestPromotions:
    async def test_one_that_ranks_better_is_promoted_and_says_why(
        self, server: Server, models: dict[str, Path]
    ) -> None:
        fill(server.core.store)
        stored(server, "v1", models["bad"], promoted=True)
        stored(server, "u1", models["good"])
        last = await promote(server, "u1")
        assert (last.model_version.version, last.model_version.current) == ("u1", True)
        assert "ranks no worse" in last.model_version.why
        metrics = last.model_version.metrics
        assert metrics["pca_heldout"] > 0.9
        assert metrics["pca_parent_heldout"] < 0.1
        assert metrics["pairs"] == 190, "20 trials of one task are held out"
        assert current(server) == "u1"

    async def test_one_that_ranks_worse_is_refused_unless_forced(
        self, server: Server, models: dict[str, Path]
    ) -> None:
        fill(server.core.store)
        stored(server, "v1", models["good"], promoted=True)
        stored(server, "u1", models["bad"])
        failure = await failure_of(promote(server, "u1"))
        assert failure.reason == "MODEL_RANKS_WORSE"
        assert "u1 is not promoted: ranks worse" in failure.message
        assert "--force" in failure.hint
        assert current(server) == "v1"
        forced = await promote(server, "u1", force=True)
        assert "by force" in forced.model_version.why
        assert current(server) == "u1"
        assert list(server.core.home.run_dir.glob("held-out-*")) == []

    async def test_without_trials_nothing_can_be_told(
        self, server: Server, models: dict[str, Path]
    ) -> None:
        stored(server, "v1", models["good"], promoted=True)
        stored(server, "u1", models["guessing"])
        failure = await failure_of(promote(server, "u1"))
        assert failure.reason == "MODEL_RANKS_WORSE"
        assert "only 0 held-out pairs" in failure.message

    async def test_the_first_version_needs_no_trials(
        self, server: Server, models: dict[str, Path]
    ) -> None:
        stored(server, "u1", models["guessing"])
        assert (await promote(server, "u1")).model_version.current
        again = await promote(server, "u1")
        assert again.model_version.current

    async def test_one_for_other_features_is_refused_even_by_force(self, server: Server) -> None:
        record = model("v1", promoted=False)
        other = type(record)(**{**vars(record), "feature_schema": "0" * 16})
        server.core.store.add_model_version(other)
        failure = await failure_of(promote(server, "v1", force=True))
        assert failure.reason == "MODEL_INVALID"
        assert current(server) == ""

    async def test_a_version_that_is_not_known_is_refused(self, server: Server) -> None:
        assert (await failure_of(promote(server, "v9"))).reason == "MODEL_VERSION_UNKNOWN"


async def test_a_version_that_was_rolled_back_is_handed_to_no_agent(server: Server) -> None:
    store = server.core.store
    for name, promoted in (("v1", True), ("v2", True), ("v3", False)):
        store.add_model_version(model(name, promoted))
    request = pb.RollbackModelVersionRequest(version="v2")
    answer = await server.models.RollbackModelVersion(request)
    assert (answer.model_version.version, answer.model_version.current) == ("v1", True)
    assert await server.models.RollbackModelVersion(request) == answer
    listed = (await server.models.ListModelVersions(pb.ListModelVersionsRequest())).versions
    assert [(m.version, m.current, m.promoted, m.rolled_back) for m in listed] == [
        ("v3", False, False, False),
        ("v2", False, False, True),
        ("v1", True, True, False),
    ]
    failure = await failure_of(
        server.models.RollbackModelVersion(pb.RollbackModelVersionRequest(version="v1"))
    )
    assert failure.reason == "MODEL_VERSION_STATE"

    fill(store, trials=1)
    group = GroupRecord(device().target, device().fingerprint, "4" * 64, "5" * 64)
    store.cancel_leases("c-1")
    store.update_campaign("c-1", [CampaignState.TUNING], groups=(group,), trials_wanted=8)
    lease = LeasePlanner(store, Bus(), clock=lambda: NOW).next_lease(device())
    assert lease is not None
    assert isinstance(lease.work, RoundSpec)
    assert lease.work.model_version == "v1"


async def test_a_version_comes_with_its_files(server: Server, models: dict[str, Path]) -> None:
    stored(server, "v1", models["good"], promoted=True)
    got = await server.models.GetModelVersion(pb.GetModelVersionRequest(version="v1"))
    assert [file.path for file in got.files] == [ONNX_FILE, CHECKPOINT_FILE]
    for file in got.files:
        assert file.size_bytes == (models["good"] / file.path).stat().st_size


class TestBase:
    def test_a_coordinator_without_versions_begins_with_it(
        self, server: Server, registry: ModelRegistry, models: dict[str, Path]
    ) -> None:
        added = registry.add_base(models["good"])
        assert added is not None
        assert (added.version, added.promoted, added.trials) == ("base", True, 0)
        assert added.metrics == {"pca_heldout": 0.75}
        assert current(server) == "base"
        assert server.core.blobs.has(added.digest)
        assert server.core.blobs.has(added.checkpoint_digest)
        assert registry.add_base(models["good"]) is None, "it is added once"

    def test_where_there_are_versions_it_is_not_wanted(
        self, server: Server, registry: ModelRegistry, models: dict[str, Path]
    ) -> None:
        server.core.store.add_model_version(model("v1", promoted=False))
        assert registry.add_base(models["good"]) is None
        assert current(server) == ""

    def test_versions_of_a_release_with_other_features_do_not_count(
        self, server: Server, registry: ModelRegistry, models: dict[str, Path]
    ) -> None:
        record = model("base")
        other = type(record)(**{**vars(record), "feature_schema": "0" * 16})
        server.core.store.add_model_version(other)
        added = registry.add_base(models["good"])
        assert added is not None
        assert (added.version, added.feature_schema) == ("base-1", schema_digest())
        assert current(server) == "base-1"

    @pytest.mark.parametrize("content", [None, "", "[]", '{"feature_schema": "0"}'])
    def test_without_one_that_fits_all_else_works(
        self,
        server: Server,
        registry: ModelRegistry,
        models: dict[str, Path],
        tmp_path: Path,
        content: str | None,
    ) -> None:
        assert registry.add_base(tmp_path / "missing") is None
        folder = tmp_path / "base"
        folder.mkdir()
        (folder / ONNX_FILE).write_bytes((models["good"] / ONNX_FILE).read_bytes())
        if content is not None:
            (folder / ABOUT_FILE).write_text(content)
        assert registry.add_base(folder) is None
        assert current(server) == ""


def test_names_are_counted_by_their_kind() -> None:
    assert next_name("v", []) == "v1"
    assert next_name("v", ["base", "u7", "v1", "v12", "vx"]) == "v13"
    assert next_name("u", ["base", "v12"]) == "u1"
