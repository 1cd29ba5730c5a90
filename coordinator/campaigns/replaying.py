"""Campaigns that measure known schedules again: what they plan, and how the latencies compare."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coordinator.campaigns.comparison import compare
from coordinator.campaigns.featurizing import fitting
from coordinator.campaigns.readiness import ready_devices
from coordinator.campaigns.results import end_with_result
from coordinator.server.bus import Bus
from coordinator.state.blobs import BlobStore
from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    GroupRecord,
    ReplaySource,
    TaskKey,
    TaskProgress,
    TaskRecord,
)
from coordinator.state.store import Store
from coordinator.state.trial_records import MeasuredTrial
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import NamedTrace, ReplaySpec

RESULT_FILE = "replay.json"

REPLAY_ROUND_TRACES = 16
"""Schedules of one lease, as many as a round of tuning measures."""

REPLAY_ATTEMPTS = 2
"""A task whose lease failed is tried once more, then left alone."""


class Replayer:
    """Plans replays and compares what came of them."""

    def __init__(
        self, store: Store, blobs: BlobStore, bus: Bus, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._bus = bus
        self._clock = clock

    async def plan(self, campaign: CampaignRecord) -> None:
        """Plan what a campaign measures again and let it begin.

        Raises:
            TuneFleetError: NO_DEVICE_MATCHES, or CAMPAIGN_STATE where there is nothing to replay.
        """
        devices = await ready_devices(
            self._store, campaign, lambda text: self._say(campaign.campaign_id, text)
        )
        groups = sorted({(t, d.fingerprint) for d in devices for t in campaign.spec.targets_for(d)})
        await asyncio.to_thread(self._plan, campaign, groups)

    def _plan(self, campaign: CampaignRecord, groups: Sequence[tuple[str, str]]) -> None:
        source = campaign.spec.replay
        assert source is not None
        tasks = self._store.task_progress(source.campaign_id)
        wanted, without = 0, set[str]()
        for target, fingerprint in groups:
            planned = 0
            for known in _by_workload(tasks):
                chosen = self._choose(known, source, target)
                if chosen and not known.digest:
                    without.add(known.workload)
                elif chosen:
                    planned += self._plan_task(campaign, known, target, fingerprint, chosen)
            wanted = max(wanted, planned)
        if not wanted:
            told = f"; the modules of {len(without)} workloads are not known" if without else ""
            raise TuneFleetError(
                Reason.CAMPAIGN_STATE,
                f"campaign {source.campaign_id} has no measured schedules to replay{told}",
                hint="Export a dataset with its workloads, or name another campaign.",
            )
        with suppress(TuneFleetError):  # it was cancelled meanwhile
            self._store.update_campaign(
                campaign.campaign_id,
                [CampaignState.IMPORTING],
                state=CampaignState.TUNING,
                groups=tuple(GroupRecord(*group, "", "") for group in groups),
                trials_wanted=wanted,
                activity=f"{len(without)} workloads left out: no module" if without else "",
            )
        self._bus.notify_work()

    def _plan_task(
        self,
        campaign: CampaignRecord,
        known: _Known,
        target: str,
        fingerprint: str,
        chosen: Sequence[MeasuredTrial],
    ) -> int:
        key = TaskKey(known.workload, target, fingerprint)
        task = known.first.task
        record = TaskRecord(
            key=key,
            name=task.name,
            weight=task.weight,
            flops=task.flops,
            workload_digest=known.digest,
            sources=task.sources,
        )
        self._store.add_tasks(campaign.campaign_id, [record])
        names = [trial.trial_id for trial in chosen]
        self._store.plan_replays(campaign.campaign_id, key, names)
        return len(names)

    def _choose(self, known: _Known, source: ReplaySource, target: str) -> list[MeasuredTrial]:
        """Choose among the trials for the same target, or where there are none among all."""
        same = [key for key in known.keys if key.target == target]
        for keys in (same, known.keys):
            found: dict[str, MeasuredTrial] = {}
            for key in keys:
                # A dataset that was known already left its trials with whoever brought them.
                trials = self._store.measured_trials(key, source.campaign_id)
                for trial in trials or self._store.measured_trials(key):
                    before = found.setdefault(trial.candidate, trial)
                    if trial.latency_s < before.latency_s:
                        found[trial.candidate] = trial
            if found:
                ordered = sorted(found.values(), key=lambda t: (t.latency_s, t.candidate))
                return spread(ordered[: source.best or None], source.per_task)
        return []

    async def finish(self, campaign: CampaignRecord) -> None:
        """Compare the latencies before and after, and end the campaign."""
        await asyncio.to_thread(self._finish, campaign)

    def _finish(self, campaign: CampaignRecord) -> None:
        result = compare(self._store.replay_pairs(campaign.campaign_id))
        end_with_result(
            self._store, self._blobs, campaign.campaign_id, RESULT_FILE, result, now=self._clock()
        )

    def _say(self, campaign_id: str, activity: str) -> None:
        with suppress(TuneFleetError):
            self._store.update_campaign(campaign_id, [CampaignState.IMPORTING], activity=activity)
        self._bus.notify_campaign(campaign_id)


@dataclass(frozen=True)
class _Known:
    """A workload of the campaign that is replayed, over its record sets."""

    workload: str
    first: TaskProgress
    digest: str
    keys: tuple[TaskKey, ...]


def _by_workload(tasks: Sequence[TaskProgress]) -> list[_Known]:
    grouped: dict[str, list[TaskProgress]] = {}
    for progress in tasks:
        grouped.setdefault(progress.task.key.workload, []).append(progress)
    return [
        _Known(
            workload,
            same[0],
            next((p.task.workload_digest for p in same if p.task.workload_digest), ""),
            tuple(p.task.key for p in same),
        )
        for workload, same in grouped.items()
    ]


def spread(trials: Sequence[MeasuredTrial], count: int) -> list[MeasuredTrial]:
    """Return so many trials evenly spread over an ordered list, both ends included; all for 0."""
    if not count or count >= len(trials):
        return list(trials)
    if count == 1:
        return [trials[0]]
    last = len(trials) - 1
    return [trials[round(i * last / (count - 1))] for i in range(count)]


def choose_replay(
    store: Store,
    campaign: CampaignRecord,
    groups: Sequence[GroupRecord],
    busy: Collection[TaskKey],
) -> tuple[GroupRecord, ReplaySpec] | None:
    """Choose schedules to measure again, of the task with the fewest trials.

    Args:
        store: where the plan is.
        campaign: one that replays.
        groups: its groups that the device belongs to.
        busy: tasks that another device is at work on.

    Returns:
        The group and the work, or ``None`` where nothing is to be done now.
    """
    by_key = {(g.target, g.fingerprint): g for g in groups}
    tasks = [
        p.task
        for p in sorted(store.task_progress(campaign.campaign_id), key=lambda p: p.trials)
        if (p.task.key.target, p.task.key.fingerprint) in by_key
        and p.task.key not in busy
        and not p.task.exhausted
    ]
    for task in tasks:
        pending = store.pending_replays(campaign.campaign_id, task.key, REPLAY_ROUND_TRACES)
        if pending:
            traces = fitting([NamedTrace(k.candidate, k.trace) for k in pending])
            work = ReplaySpec(task.key.workload, task.workload_digest, task.key.target, traces)
            return by_key[task.key.target, task.key.fingerprint], work
    return None


def replayed(store: Store, campaign: CampaignRecord) -> bool:
    """Whether everything planned was measured, or never will be."""
    return all(
        p.task.exhausted or not store.pending_replays(campaign.campaign_id, p.task.key, 1)
        for p in store.task_progress(campaign.campaign_id)
    )
