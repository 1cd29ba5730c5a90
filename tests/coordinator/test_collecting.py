"""Collections: which task comes next, on a real store, and when one is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_samples import FINGERPRINT, NOW, campaign, device, task, trial

from coordinator.campaigns.collecting import choose_collecting_round, collected
from coordinator.campaigns.planner import LeasePlanner
from coordinator.server.bus import Bus
from coordinator.state.records import (
    CampaignPurpose,
    CampaignSpec,
    CampaignState,
    GroupRecord,
    LeaseState,
    TaskKey,
    TaskProgress,
    TaskTotals,
)
from coordinator.state.sql import open_store
from coordinator.state.store import Store
from tunefleet.leases import Lease, RoundSpec

SSE = '{"kind":"llvm","mcpu":"x86-64-v2"}'
AVX2 = '{"kind":"llvm","mcpu":"x86-64-v3"}'
KEYS = [TaskKey(work, target, FINGERPRINT) for target in (SSE, AVX2) for work in ("aa", "bb")]
GROUPS = tuple(GroupRecord(target, FINGERPRINT, "", "") for target in (SSE, AVX2))
SPEC = CampaignSpec(
    "net",
    "0" * 64,
    "net.onnx",
    targets=(SSE, AVX2),
    purpose=CampaignPurpose.COLLECT,
    trials_per_task=20,
)


def progress(workload: str, trials: int = 0, rounds: int = 0) -> TaskProgress:
    return TaskProgress(task(TaskKey(workload, SSE, FINGERPRINT)), trials=trials, rounds=rounds)


class TestChoice:
    def test_no_task_gets_a_second_round_before_all_had_one(self) -> None:
        tasks = [progress("aa", 16, rounds=1), progress("bb"), progress("cc")]
        choice = choose_collecting_round(tasks, 40, busy=())
        assert choice is not None
        assert choice.progress.task.key.workload == "bb"
        assert choice.trials == 16

    def test_the_last_round_brings_what_is_missing(self) -> None:
        choice = choose_collecting_round([progress("aa", 16, rounds=1)], 20, busy=())
        assert choice is not None
        assert choice.trials == 4

    def test_what_another_device_is_at_is_left_to_it(self) -> None:
        tasks = [progress("aa"), progress("bb")]
        choice = choose_collecting_round(tasks, 16, busy={tasks[0].task.key})
        assert choice is not None
        assert choice.progress is tasks[1]
        assert choose_collecting_round(tasks, 16, busy={t.task.key for t in tasks}) is None

    def test_a_task_whose_rounds_bring_nothing_is_given_up(self) -> None:
        assert collected(progress("aa", 0, rounds=3), 16)
        assert not collected(progress("aa", 0, rounds=2), 16)
        assert not collected(progress("aa", 4, rounds=3), 16)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    made.put_device(device("one"))
    yield made
    made.close()


@pytest.fixture
def planner(store: Store) -> LeasePlanner:
    return LeasePlanner(store, Bus(), clock=lambda: NOW)


def collecting(store: Store, campaign_id: str = "c-1", keys: list[TaskKey] = KEYS) -> None:
    record = campaign(campaign_id, groups=GROUPS, trials_wanted=40, spec=SPEC)
    store.create_campaign(record, "")
    store.add_tasks(campaign_id, [replace(task(key), sources={"net": 3}) for key in keys])


async def do_round(store: Store, planner: LeasePlanner) -> tuple[Lease, RoundSpec]:
    lease = planner.next_lease(device("one"))
    assert lease is not None
    assert isinstance(lease.work, RoundSpec)
    numbers = range(1, lease.work.trials + 1)
    first = len(lease.work.tried)
    report = [trial(first + n, lease.lease_id) for n in numbers]
    store.ingest_trials("id-one", lease.lease_id, lease.fencing_token, report, NOW)
    store.end_lease(lease.lease_id, lease.fencing_token, LeaseState.DONE)
    return lease, lease.work


async def test_one_device_collects_for_every_target_in_turn(
    store: Store, planner: LeasePlanner
) -> None:
    collecting(store)
    rounds = [(await do_round(store, planner))[1] for _ in range(8)]
    assert {(r.workload, r.target) for r in rounds[:4]} == {(k.workload, k.target) for k in KEYS}
    assert rounds[0].workload == rounds[1].workload
    assert [r.trials for r in rounds] == [16] * 4 + [4] * 4
    assert planner.next_lease(device("one")) is None


async def test_rounds_rank_by_no_model_and_repeat_nothing(
    store: Store, planner: LeasePlanner
) -> None:
    collecting(store, keys=KEYS[:1])
    first = (await do_round(store, planner))[1]
    second = (await do_round(store, planner))[1]
    assert (first.model_digest, second.model_digest) == ("", "")
    assert (len(first.tried), len(second.tried)) == (0, 16)
    assert not first.include_baseline
    # The fastest are known to it, so that it can look near them too.
    assert [k.latency_s for k in second.known] == pytest.approx([0.001, 0.002, 0.003, 0.004])


async def test_of_two_collections_the_one_further_behind_comes_first(
    store: Store, planner: LeasePlanner
) -> None:
    collecting(store, "c-1", KEYS[:2])
    collecting(store, "c-2", KEYS[2:])
    took = [(await do_round(store, planner))[0].campaign_id for _ in range(4)]
    assert sorted(took[:2]) == ["c-1", "c-2"]
    assert sorted(took[2:]) == ["c-1", "c-2"]


async def test_a_campaign_that_somebody_waits_for_comes_before_collections(
    store: Store, planner: LeasePlanner
) -> None:
    collecting(store)
    tuning = replace(SPEC, purpose=CampaignPurpose.TUNE, trials_per_task=0)
    store.create_campaign(campaign("c-2", groups=GROUPS, trials_wanted=40, spec=tuning), "")
    store.add_tasks("c-2", [task(KEYS[0])])
    assert (await do_round(store, planner))[0].campaign_id == "c-2"


async def test_a_later_collection_fills_up_what_is_there(
    store: Store, planner: LeasePlanner
) -> None:
    collecting(store, "c-1", KEYS[:1])
    await do_round(store, planner)
    store.update_campaign("c-1", [], state=CampaignState.CANCELLED)
    store.create_campaign(campaign("c-2", groups=GROUPS, trials_wanted=40, spec=SPEC), "")
    store.add_tasks("c-2", [task(key) for key in KEYS[:2]], count_stored=True)
    assert [p.trials for p in store.task_progress("c-2")] == [16, 0]
    rounds = [(await do_round(store, planner))[1] for _ in range(3)]
    assert sorted(r.trials for r in rounds) == [4, 4, 16]
    assert planner.next_lease(device("one")) is None


def test_tasks_and_their_trials_are_counted(store: Store) -> None:
    assert store.task_totals() == {}
    collecting(store)
    assert store.task_totals() == {"c-1": TaskTotals(tasks=4, trials=0)}


def test_where_tasks_come_from_and_what_was_asked_for_are_kept(store: Store) -> None:
    collecting(store)
    assert store.get_campaign("c-1").spec == SPEC
    assert store.task_progress("c-1")[0].task.sources == {"net": 3}
