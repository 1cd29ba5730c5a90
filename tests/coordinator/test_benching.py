"""Timing again what a campaign compiled: who may be asked, and what is made of the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from store_samples import (
    FINGERPRINT,
    KEY,
    NOW,
    PROFILE,
    TARGET,
    campaign,
    device,
    task,
)

from coordinator.campaigns.benching import RESULT_FILE, Bencher
from coordinator.campaigns.benchmarks import BENCHMARK_ATTEMPTS
from coordinator.campaigns.breakdown import group_result
from coordinator.campaigns.operators import operator_of
from coordinator.campaigns.planner import LeasePlanner
from coordinator.server.bus import Bus
from coordinator.server.campaign_creation import create_campaign
from coordinator.server.limits import OFFLINE_AFTER_S
from coordinator.state.blobs import BlobStore
from coordinator.state.home import Home
from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    GroupRecord,
    LeaseState,
    Quarantine,
    TaskProgress,
)
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import BenchmarkResult, BenchmarkSpec, OpTime
from tunefleet.v1 import campaign_pb2

COMPILED = GroupRecord(
    TARGET,
    FINGERPRINT,
    "4" * 64,
    "5" * 64,
    benchmark_s={"tuned": (9.0,)},
    max_abs_err=9.0,
    compiled={"tuned": "6" * 64, "untuned": "7" * 64},
)
OTHER_HARDWARE = replace(PROFILE, cpu_model="Another CPU")
OPS = (
    OpTime("fused_conv2d_relu", "", 1, 0.004),
    OpTime("fused_conv2d1_relu", "", 2, 0.006),
    OpTime("reshape", "", 1, 0.001),
    OpTime("vm.builtin.alloc_storage", "", 3, 0.0005),
)
NODES = (OpTime("c1", "Conv", 1, 0.007), OpTime("c1_reorder", "ReorderOutput", 1, 0.002))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def tuned(store: Store, **changes: Any) -> None:
    """Store the campaign ``c-1`` that compiled modules, and a device of its hardware."""
    store.put_device(device("box"))
    done = {"state": CampaignState.DONE, "groups": (COMPILED,), "onnx_digest": "8" * 64}
    store.create_campaign(campaign(**done | changes), "")


def begin(store: Store, blobs: BlobStore, source: str = "c-1", **changes: Any) -> CampaignRecord:
    message = campaign_pb2.CampaignSpec(
        name="again",
        purpose=campaign_pb2.CAMPAIGN_PURPOSE_BENCH,
        bench=campaign_pb2.BenchOptions(campaign_id=source, per_op=changes.pop("per_op", False)),
        **changes,
    )
    return create_campaign(store, blobs, message, "", NOW)


class TestCreation:
    def test_it_begins_with_the_modules_and_without_their_times(
        self, store: Store, blobs: BlobStore
    ) -> None:
        tuned(store)
        begun = store.get_campaign(begin(store, blobs, per_op=True).campaign_id)
        [group] = begun.groups
        assert (group.compiled, group.benchmark_s) == (COMPILED.compiled, {})
        assert (begun.state, begun.onnx_digest) == (CampaignState.FINISHING, "8" * 64)
        assert begun.spec.bench is not None
        assert (begun.spec.bench.campaign_id, begun.spec.bench.per_op) == ("c-1", True)

    def test_a_benchmark_of_a_benchmark_is_of_what_it_timed(
        self, store: Store, blobs: BlobStore
    ) -> None:
        tuned(store)
        again = begin(store, blobs, begin(store, blobs).campaign_id)
        assert again.spec.bench is not None
        assert again.spec.bench.campaign_id == "c-1"

    def test_an_unknown_campaign_is_refused(self, store: Store, blobs: BlobStore) -> None:
        with pytest.raises(TuneFleetError, match="no campaign 'c-1'") as caught:
            begin(store, blobs)
        assert caught.value.reason is Reason.CAMPAIGN_UNKNOWN

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"state": CampaignState.TUNING}, "is tuning; its modules can be timed when"),
            ({"groups": (replace(COMPILED, compiled={}),)}, "is done and compiled nothing"),
        ],
        ids=["not finished", "nothing compiled"],
    )
    def test_what_compiled_nothing_is_refused(
        self, store: Store, blobs: BlobStore, changes: dict[str, Any], told: str
    ) -> None:
        tuned(store, **changes)
        with pytest.raises(TuneFleetError, match=told) as caught:
            begin(store, blobs)
        assert caught.value.reason is Reason.CAMPAIGN_STATE

    @pytest.mark.parametrize(
        ("there", "told"),
        [
            (device("box", last_seen_unix_s=NOW - OFFLINE_AFTER_S - 1), "box (offline)"),
            (device("box", quarantine=Quarantine("hot", NOW, NOW + 60)), "box (in quarantine)"),
            (device("box", profile=OTHER_HARDWARE), "no device of its hardware is known"),
        ],
        ids=["offline", "quarantined", "other hardware"],
    )
    def test_without_a_device_it_says_which_would_do(
        self, store: Store, blobs: BlobStore, there: Any, told: str
    ) -> None:
        tuned(store)
        store.put_device(there)
        if there.quarantine:
            store.set_quarantine(there.device_id, there.quarantine)
        with pytest.raises(TuneFleetError) as caught:
            begin(store, blobs)
        assert caught.value.reason is Reason.NO_DEVICE_MATCHES
        assert told in caught.value.message

    def test_a_device_that_was_chosen_must_fit(self, store: Store, blobs: BlobStore) -> None:
        tuned(store)
        store.put_device(device("odd", profile=OTHER_HARDWARE))
        with pytest.raises(TuneFleetError, match=r"box \(connected, but not chosen\)"):
            begin(store, blobs, device_selector="name=odd")

    def test_groups_without_a_device_are_left_out(self, store: Store, blobs: BlobStore) -> None:
        tuned(store, groups=(COMPILED, replace(COMPILED, fingerprint="f" * 16)))
        assert [g.fingerprint for g in begin(store, blobs).groups] == [FINGERPRINT]


class TestDriving:
    @pytest.fixture
    def planner(self, store: Store) -> LeasePlanner:
        return LeasePlanner(store, Bus(), clock=lambda: NOW)

    @pytest.fixture
    def bencher(self, store: Store, blobs: BlobStore, tmp_path: Path) -> Bencher:
        return Bencher(store, blobs, Home(tmp_path / "home"), Bus(), clock=lambda: NOW)

    async def measured(
        self, store: Store, planner: LeasePlanner, *results: BenchmarkResult
    ) -> BenchmarkSpec:
        """Lease the benchmark and report; the device tunes for another target by itself."""
        given = planner.next_lease(device("box", target='{"kind":"llvm"}'))
        assert given is not None
        assert isinstance(given.work, BenchmarkSpec)
        ended = store.end_lease(given.lease_id, given.fencing_token, LeaseState.DONE)
        planner.benchmark_done(ended, results, "")
        return given.work

    async def test_the_result_is_kept(
        self, store: Store, blobs: BlobStore, planner: LeasePlanner, bencher: Bencher
    ) -> None:
        tuned(store)
        begun = begin(store, blobs)
        work = await self.measured(
            store,
            planner,
            BenchmarkResult("tuned", (0.1, 0.3, 0.2), 1e-6),
            BenchmarkResult("onnxruntime", error="it crashed"),
        )
        assert [s.name for s in work.subjects] == ["tuned", "untuned", "onnxruntime"]
        assert not work.per_op
        await bencher.finish(begun)
        done = store.get_campaign(begun.campaign_id)
        assert (done.state, [a.path for a in done.artifacts]) == (CampaignState.DONE, [RESULT_FILE])
        result = json.loads(blobs.path(done.artifacts[0].digest).read_text())
        [group] = result["groups"]
        assert (result["campaign_id"], group["device"]) == ("c-1", "box")
        assert group["subjects"]["tuned"]["end_to_end_s"] == 0.2
        assert group["subjects"]["onnxruntime"]["error"] == "it crashed"
        assert store.get_campaign("c-1").groups == (COMPILED,), "the source is another's"

    async def test_what_operators_took_is_asked_for_and_survives_a_restart(
        self, store: Store, blobs: BlobStore, planner: LeasePlanner
    ) -> None:
        tuned(store)
        begun = begin(store, blobs, per_op=True)
        result = BenchmarkResult(
            "tuned", (0.1,), 1e-6, ops=OPS, profiled_s=(0.2,), between_s=(0.1,)
        )
        assert (await self.measured(store, planner, result)).per_op
        [group] = store.get_campaign(begun.campaign_id).groups
        assert (group.ops, group.profiled_s) == ({"tuned": OPS}, {"tuned": (0.2,)})
        assert group.between_s == {"tuned": (0.1,)}

    async def test_nothing_timed_is_a_failure(
        self, store: Store, blobs: BlobStore, planner: LeasePlanner, bencher: Bencher
    ) -> None:
        tuned(store)
        begun = begin(store, blobs)
        for _ in range(BENCHMARK_ATTEMPTS):
            await self.measured(store, planner, BenchmarkResult("tuned", error="it crashed"))
        with pytest.raises(TuneFleetError, match="nothing could be timed: it crashed"):
            await bencher.finish(begun)


class TestBreakdown:
    @pytest.fixture
    def result(self) -> dict[str, Any]:
        group = replace(
            COMPILED,
            benchmark_s={"tuned": (0.014, 0.012, 0.010), "onnxruntime": (0.009,)},
            profiled_s={"tuned": (0.013,)},
            ops={"tuned": OPS, "onnxruntime": NODES},
        )
        tasks = [TaskProgress(task(), best_s=0.001, final_s=0.002)]
        # Two functions may be of one workload, and a reshape is of none that is tuned.
        functions = {
            "fused_conv2d_relu": KEY.workload,
            "fused_conv2d1_relu": KEY.workload,
            "reshape": "00000000000000cc",
        }
        return group_result(group, "box", functions, tasks)

    def test_a_task_in_the_network_stands_beside_its_latency_when_it_was_tuned(
        self, result: dict[str, Any]
    ) -> None:
        first, second, *_ = result["subjects"]["tuned"]["ops"]
        assert (first["name"], second["name"]) == ("fused_conv2d1_relu", "fused_conv2d_relu")
        # A later campaign found a better schedule, which this network does not have.
        assert (first["task_s"], second["task_s"]) == (0.002, 0.002)
        assert (first["ratio"], second["ratio"]) == pytest.approx((1.5, 2.0))
        assert (first["share"], second["share"]) == pytest.approx((0.5, 1 / 3))

    def test_what_is_no_task_is_told_apart(self, result: dict[str, Any]) -> None:
        subject = result["subjects"]["tuned"]
        others = [op for op in subject["ops"] if not op["workload"]]
        assert [op["name"] for op in others] == ["reshape", "vm.builtin.alloc_storage"]
        assert all(op["ratio"] is None for op in others)
        assert subject["remainder_s"] == pytest.approx(0.012 - 0.0115)
        assert subject["overhead_s"] == pytest.approx(0.001)
        assert (subject["tasks_s"], subject["tasks_alone_s"]) == pytest.approx((0.010, 0.006))

    def test_subjects_are_compared_by_kind_of_operator(self, result: dict[str, Any]) -> None:
        rows = {row["operator"]: row["seconds"] for row in result["by_operator"]}
        assert list(rows) == ["convolution", "data movement", "virtual machine"]
        assert rows["convolution"] == pytest.approx({"tuned": 0.010, "onnxruntime": 0.007})
        assert rows["data movement"] == pytest.approx({"tuned": 0.001, "onnxruntime": 0.002})


@pytest.mark.parametrize(
    ("name", "op", "kind"),
    [
        ("fused_conv2d10_add6_relu6", "", "convolution"),
        ("fused_matmul_add16", "", "matrix product"),
        ("mean", "", "pooling and reduction"),
        ("reshape/conv", "GlobalAveragePool", "pooling and reduction"),
        ("any", "SkipLayerNormalization", "normalisation"),
        ("vm.builtin.reshape", "", "virtual machine"),
        ("fused_add_relu", "", "elementwise"),
    ],
)
def test_kinds_of_operators(name: str, op: str, kind: str) -> None:
    assert operator_of(name, op) == kind
