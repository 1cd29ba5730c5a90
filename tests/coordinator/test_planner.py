"""What a device that asks for work is given; on a real store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import (
    FINGERPRINT,
    KEY,
    NOW,
    OTHER_KEY,
    TARGET,
    UNMEASURED,
    campaign,
    device,
    model,
    task,
    trial,
)

from coordinator.campaigns.planner import LeasePlanner
from coordinator.server.bus import Bus
from coordinator.state.records import CampaignState, GroupRecord, LeaseState
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.leases import BenchmarkResult, BenchmarkSpec, Lease, RoundSpec

GROUP = GroupRecord(TARGET, FINGERPRINT, prepared_digest="4" * 64, untuned_digest="5" * 64)
COMPILED = replace(GROUP, compiled={"tuned": "6" * 64, "untuned": "7" * 64})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    made.put_device(device("one"))
    made.put_device(device("two"))
    yield made
    made.close()


@pytest.fixture
def planner(store: Store) -> LeasePlanner:
    # Minutes pass between two looks at the time.
    minutes = itertools.count(step=60.0)
    return LeasePlanner(store, Bus(), clock=lambda: NOW, monotonic=lambda: next(minutes))


def tuning(store: Store, **changes: object) -> None:
    store.create_campaign(campaign(groups=(GROUP,), trials_wanted=20, **changes), "")
    store.add_tasks("c-1", [task(KEY, "large"), replace(task(OTHER_KEY, "small"), flops=1e6)])


async def granted(planner: LeasePlanner, name: str = "one") -> Lease:
    lease = planner.next_lease(device(name))
    assert lease is not None
    return lease


async def round_for(planner: LeasePlanner, name: str = "one") -> RoundSpec:
    work = (await granted(planner, name)).work
    assert isinstance(work, RoundSpec)
    return work


async def test_the_first_round_brings_the_baseline_and_no_model(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store)
    work = await round_for(planner)
    assert work.workload == KEY.workload
    assert work.include_baseline
    assert work.model_digest == ""
    assert work.tried == frozenset()


async def test_a_later_round_knows_the_model_and_what_was_measured(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store)
    store.add_model_version(model("v1"))
    first = await granted(planner)
    baseline = trial(9, first.lease_id, trace="[[], []]")
    report = [*(trial(n, first.lease_id) for n in (3, 1, 2)), baseline]
    store.ingest_trials("id-one", first.lease_id, first.fencing_token, report, NOW)
    store.end_lease(first.lease_id, first.fencing_token, LeaseState.DONE)
    store.mark_exhausted("c-1", OTHER_KEY)

    work = await round_for(planner)
    assert work.model_version == "v1"
    assert [k.latency_s for k in work.known][:3] == pytest.approx([0.001, 0.002, 0.003])
    assert work.tried == {t.candidate for t in report}
    assert not work.include_baseline


async def test_a_round_that_a_model_guides_leaves_the_baseline_to_the_second(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store)
    store.add_model_version(model("v1"))
    store.mark_exhausted("c-1", OTHER_KEY)
    first = await granted(planner)
    assert isinstance(first.work, RoundSpec)
    assert not first.work.include_baseline
    report = [trial(n, first.lease_id) for n in (1, 2)]
    store.ingest_trials("id-one", first.lease_id, first.fencing_token, report, NOW)
    store.end_lease(first.lease_id, first.fencing_token, LeaseState.DONE)
    assert (await round_for(planner)).include_baseline


async def test_work_is_expected_of_a_model_that_is_being_imported(
    store: Store, planner: LeasePlanner
) -> None:
    assert not planner.expects_work(device("one"))
    spec = replace(campaign().spec, device_selector="site=lab")
    store.create_campaign(campaign(state=CampaignState.IMPORTING, spec=spec), "")
    assert planner.expects_work(device("one"))
    assert not planner.expects_work(device("two", labels={"site": "elsewhere"}))
    store.update_campaign("c-1", [CampaignState.IMPORTING], state=CampaignState.CANCELLED)
    assert not planner.expects_work(device("one"))


async def test_a_first_round_brings_what_is_fast_for_similar_tasks(
    store: Store, planner: LeasePlanner
) -> None:
    store.create_campaign(campaign(groups=(GROUP,), trials_wanted=50), "")
    later, foreign = task(OTHER_KEY, "conv2d1_add"), replace(KEY, workload="00000000000000cc")
    tasks = [task(KEY, "conv2d"), replace(later, flops=1e8), task(foreign, "matmul")]
    store.add_tasks("c-1", tasks)
    first = await granted(planner)
    assert isinstance(first.work, RoundSpec)
    assert first.work.related == ()
    report = [trial(n, first.lease_id) for n in (3, 1, 2)]
    store.ingest_trials("id-one", first.lease_id, first.fencing_token, report, NOW)
    store.end_lease(first.lease_id, first.fencing_token, LeaseState.DONE)

    given = [await round_for(planner, "one"), await round_for(planner, "two")]
    related = {work.workload: work.related for work in given}
    assert related == {
        OTHER_KEY.workload: (report[1].trace, report[2].trace),
        foreign.workload: (),
    }


async def test_two_devices_of_one_hardware_get_different_tasks(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store)
    assert (await round_for(planner, "one")).workload == KEY.workload
    assert (await round_for(planner, "two")).workload == OTHER_KEY.workload


async def test_nothing_is_left_when_every_task_is_being_worked_on(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store)
    store.mark_exhausted("c-1", OTHER_KEY)
    await granted(planner, "one")
    assert planner.next_lease(device("two")) is None


async def test_the_budget_ends_the_rounds(store: Store, planner: LeasePlanner) -> None:
    tuning(store)
    lease = await granted(planner)
    report = [trial(n, lease.lease_id) for n in range(1, 21)]
    store.ingest_trials("id-one", lease.lease_id, lease.fencing_token, report, NOW)
    store.end_lease(lease.lease_id, lease.fencing_token, LeaseState.DONE)
    assert planner.next_lease(device("one")) is None


@pytest.mark.parametrize(
    "asking",
    [
        device("one", profile=UNMEASURED),
        device("one", target='{"kind":"llvm","mcpu":"haswell"}'),
        device("one", labels={"site": "elsewhere"}),
    ],
    ids=["not measured yet", "another target", "not selected"],
)
async def test_a_device_outside_the_campaign_gets_nothing(
    store: Store, planner: LeasePlanner, asking: object
) -> None:
    spec = replace(campaign().spec, device_selector="site=lab")
    store.create_campaign(campaign(groups=(GROUP,), trials_wanted=20, spec=spec), "")
    store.add_tasks("c-1", [task()])
    assert planner.next_lease(asking) is None  # type: ignore[arg-type]


async def test_a_campaigns_own_target_replaces_the_devices(
    store: Store, planner: LeasePlanner
) -> None:
    tuning(store, spec=replace(campaign().spec, targets=(TARGET,)))
    other = device("one", target='{"kind":"llvm","mcpu":"haswell"}')
    lease = planner.next_lease(other)
    assert lease is not None


async def test_a_paused_campaign_leases_nothing(store: Store, planner: LeasePlanner) -> None:
    tuning(store)
    store.update_campaign("c-1", [], state=CampaignState.PAUSED)
    assert planner.next_lease(device("one")) is None


def finishing(store: Store) -> None:
    done = campaign(
        state=CampaignState.FINISHING,
        groups=(COMPILED,),
        onnx_digest="8" * 64,
        inputs_digest="9" * 64,
        outputs_digest="a" * 64,
    )
    store.create_campaign(done, "")


async def benchmark(store: Store, planner: LeasePlanner, *results: BenchmarkResult) -> None:
    """Lease a benchmark and report what it found."""
    lease = await granted(planner)
    record = store.end_lease(lease.lease_id, lease.fencing_token, LeaseState.DONE)
    planner.benchmark_done(record, results, "")


async def test_a_finishing_campaign_is_benchmarked_once(
    store: Store, planner: LeasePlanner
) -> None:
    finishing(store)
    work = (await granted(planner, "one")).work
    assert isinstance(work, BenchmarkSpec)
    assert [s.name for s in work.subjects] == ["tuned", "untuned", "onnxruntime"]
    assert work.threads == 2
    assert planner.next_lease(device("two")) is None


async def test_a_benchmarks_result_is_kept(store: Store, planner: LeasePlanner) -> None:
    finishing(store)
    await benchmark(
        store,
        planner,
        BenchmarkResult("tuned", (0.1, 0.2), 1e-6),
        BenchmarkResult("untuned", (0.9,), 1e-6),
    )
    [group] = store.get_campaign("c-1").groups
    assert group.benchmark_s == {"tuned": (0.1, 0.2), "untuned": (0.9,)}
    assert group.max_abs_err == 1e-6
    assert planner.next_lease(device("one")) is None


async def test_a_failed_benchmark_is_tried_once_more_then_reported(
    store: Store, planner: LeasePlanner
) -> None:
    finishing(store)
    await benchmark(store, planner, BenchmarkResult("tuned", error="it crashed"))
    assert store.get_campaign("c-1").groups[0].benchmark_error == ""
    await benchmark(store, planner, BenchmarkResult("tuned", error="it crashed"))
    assert store.get_campaign("c-1").groups[0].benchmark_error == "it crashed"
    assert planner.next_lease(device("one")) is None
