"""Decides what a device that asks for work does next."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from itertools import zip_longest

import structlog

from coordinator.campaigns.attempts import failed_attempts
from coordinator.campaigns.benchmarks import choose_benchmark, keep_benchmark
from coordinator.campaigns.collecting import (
    COLLECTION_MEASURE,
    COLLECTION_PARENTS,
    choose_collecting_round,
    collecting_round_trials,
    collecting_search,
)
from coordinator.campaigns.featurizing import choose_featurizing, keep_featurized
from coordinator.campaigns.finals import choose_final, in_finals, trials_in_time
from coordinator.campaigns.lookups import outlook_of, predictions_of
from coordinator.campaigns.relatives import Relatives
from coordinator.campaigns.replaying import REPLAY_ATTEMPTS, choose_replay
from coordinator.campaigns.round_size import search_of
from coordinator.campaigns.scheduler import Choice, choose_round, lacks_baseline
from coordinator.campaigns.steadiness import READINGS_USED, judge
from coordinator.server.bus import Bus
from coordinator.server.compatibility import fits_tvm
from coordinator.server.limits import LEASE_TTL_S
from coordinator.server.selectors import matches
from coordinator.state.records import (
    CampaignPurpose,
    CampaignRecord,
    CampaignState,
    DeviceRecord,
    GroupRecord,
    KnownTask,
    LeaseKind,
    LeaseRecord,
    LeaseState,
    ModelVersionRecord,
    TaskKey,
    TaskProgress,
    TaskTotals,
)
from coordinator.state.store import Store
from tunefleet.errors import TuneFleetError
from tunefleet.lease_conversions import lease_to_proto
from tunefleet.leases import (
    BenchmarkResult,
    BenchmarkSpec,
    FeaturizedTrace,
    FeaturizeSpec,
    KnownTrace,
    Lease,
    ReplaySpec,
    RoundSpec,
    Work,
)

log = structlog.get_logger()

KNOWN_TRACES = 32
"""Best schedules sent along to start a search from."""

RELATIVES = 8
"""Similar tasks whose schedules are sent along with a task's first round."""

_RELATIVES_KEPT_S = 5.0
"""For so long tasks that got their first latency are not looked for among all that are known."""

_TRACES_A_RELATIVE = 2


_KINDS = {
    RoundSpec: LeaseKind.ROUND,
    BenchmarkSpec: LeaseKind.BENCHMARK,
    ReplaySpec: LeaseKind.REPLAY,
    FeaturizeSpec: LeaseKind.FEATURIZE,
}


class LeasePlanner:
    """Grants rounds and benchmarks."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._monotonic = monotonic
        self._relatives: Relatives | None = None
        self._relatives_at = 0.0

    def expects_work(self, device: DeviceRecord) -> bool:
        """Tell whether a model is being imported that the device will tune."""
        if device.is_quarantined(self._clock()):
            return False
        return any(
            campaign.spec.purpose in {CampaignPurpose.TUNE, CampaignPurpose.COLLECT}
            and matches(campaign.spec.device_selector, device)
            for campaign in self._store.list_campaigns([CampaignState.IMPORTING])
        )

    def benchmark_done(
        self, lease: LeaseRecord, results: Sequence[BenchmarkResult], error: str
    ) -> None:
        """Keep what a benchmark found; ``error`` says why it found nothing."""
        keep_benchmark(self._store, lease, results, error)

    def featurized(
        self, lease: LeaseRecord, results: Sequence[FeaturizedTrace], error: str
    ) -> None:
        """Keep the features that were computed; ``error`` says why there are none.

        It may take seconds to count what is left of a large import.
        """
        keep_featurized(self._store, lease, results, error)
        left = self._store.count_unfeatured(lease.campaign_id)
        with suppress(TuneFleetError):  # it was cancelled meanwhile
            self._store.update_campaign(
                lease.campaign_id,
                [CampaignState.TUNING],
                activity=f"computing features, {left} trials to go",
            )

    def round_done(self, lease: LeaseRecord) -> None:
        """Judge the device by what its reference kernel took."""
        now = self._clock()
        if lease.kind is LeaseKind.REPLAY and lease.state is LeaseState.FAILED:
            purpose = self._store.get_campaign(lease.campaign_id).spec.purpose
            replays = purpose is CampaignPurpose.REPLAY
            if replays and failed_attempts(self._store, lease) >= REPLAY_ATTEMPTS:
                key = TaskKey(lease.workload, lease.target, lease.fingerprint)
                self._store.mark_exhausted(lease.campaign_id, key)
            return
        if not self._store.note_canary(lease.lease_id, now):
            return  # nothing new to judge by: the call may have been repeated
        device = self._store.get_device(lease.device_id)
        key = TaskKey(lease.workload, lease.target, lease.fingerprint)
        readings = self._store.canary_readings(lease.device_id, key, READINGS_USED)
        judged = judge(readings, device.quarantine, now)
        if judged != device.quarantine:
            self._store.set_quarantine(lease.device_id, judged)
            if judged is None:
                log.info("device released", device=device.name)
            else:
                log.warning("device in quarantine", device=device.name, why=judged.reason)

    def next_lease(self, device: DeviceRecord) -> Lease | None:
        """Grant the device its next piece of work, or ``None`` where there is none for it."""
        if not device.ready or device.is_quarantined(self._clock()):
            return None
        active = self._store.list_campaigns([CampaignState.FINISHING, CampaignState.TUNING])
        for campaign in reversed([c for c in active if c.state is CampaignState.FINISHING]):
            lease = self._benchmark(campaign, device)
            if lease is not None:
                return lease
        tuning = [c for c in active if c.state is CampaignState.TUNING]
        for campaign in self._by_urgency(tuning):
            lease = self._round(campaign, device)
            if lease is not None:
                return lease
        return None

    def _by_urgency(self, campaigns: Sequence[CampaignRecord]) -> list[CampaignRecord]:
        """Put those who wait for a result first, and collections that are furthest behind next."""
        totals = self._store.task_totals() if len(campaigns) > 1 else {}

        def urgency(campaign: CampaignRecord) -> tuple[float, float]:
            age = campaign.created_at_unix_s
            if campaign.spec.purpose is not CampaignPurpose.COLLECT:
                return 0.0, age
            total = totals.get(campaign.campaign_id, TaskTotals(0, 0))
            wanted = campaign.spec.trials_per_task * total.tasks
            return 1.0 + total.trials / max(1, wanted), age

        return sorted(campaigns, key=urgency)

    def _round(self, campaign: CampaignRecord, device: DeviceRecord) -> Lease | None:
        if campaign.spec.purpose is CampaignPurpose.IMPORT:
            return self._featurizing(campaign, device)
        groups = groups_of(campaign, device)
        if not groups:
            return None
        progress = self._store.task_progress(campaign.campaign_id, device.fingerprint)
        busy = self._store.leased_tasks(device.fingerprint)
        if campaign.spec.purpose is CampaignPurpose.REPLAY or in_finals(campaign):
            choose = choose_final if in_finals(campaign) else choose_replay
            replay = choose(self._store, campaign, groups, busy)
            return None if replay is None else self._grant(campaign, device, *replay)
        if campaign.spec.purpose is CampaignPurpose.COLLECT:
            return self._collecting_round(campaign, device, groups, progress, busy)
        # Of several targets the one that is furthest behind comes first.
        by_group = sorted(
            ((group, tasks_of(progress, group)) for group in groups),
            key=lambda pair: sum(t.trials for t in pair[1]),
        )
        model = self._store.current_model()
        predictions = None if model is None else predictions_of(self._store, model)
        for group, tasks in by_group:
            choice = choose_round(
                outlook_of(self._store, group, tasks),
                campaign.trials_wanted - sum(t.trials for t in tasks),
                busy,
                min_gain=campaign.spec.min_gain,
                predictions=predictions,
            )
            if choice is not None:
                return self._tuning_round(campaign, device, group, choice, model)
        return None

    def _featurizing(self, campaign: CampaignRecord, device: DeviceRecord) -> Lease | None:
        """Have the device, whichever it is, compute features that are missing."""
        active = self._store.list_leases(campaign.campaign_id, [LeaseState.ACTIVE])
        busy = {TaskKey(a.workload, a.target, a.fingerprint) for a in active}
        found = choose_featurizing(self._store, campaign, busy)
        if found is None:
            return None
        key, work = found
        group = GroupRecord(key.target, key.fingerprint, "", "")
        return self._grant(campaign, device, group, work)

    def _tuning_round(
        self,
        campaign: CampaignRecord,
        device: DeviceRecord,
        group: GroupRecord,
        choice: Choice,
        model: ModelVersionRecord | None,
    ) -> Lease | None:
        task = choice.progress.task
        trials = trials_in_time(self._store, campaign, choice, self._clock())
        spec = RoundSpec(
            workload=task.key.workload,
            workload_digest=task.workload_digest,
            target=task.key.target,
            trials=trials,
            seed=_seed(campaign.spec.seed, task.key, choice.progress.rounds),
            model_version=model.version if model else "",
            model_digest=model.digest if model else "",
            known=tuple(
                KnownTrace(trace=k.trace, latency_s=k.latency_s, candidate=k.candidate)
                for k in self._store.best_candidates(task.key, KNOWN_TRACES)
            ),
            tried=self._store.tried_candidates(task.key),
            related=self._related(choice.progress),
            search=search_of(trials),
            include_baseline=lacks_baseline(choice.progress)
            or (model is None and choice.progress.rounds == 0),
        )
        return self._grant(campaign, device, group, spec)

    def _related(self, progress: TaskProgress) -> tuple[str, ...]:
        """Return what is fast for similar tasks, the fastest of each before any second one."""
        if progress.rounds:
            return ()
        task = KnownTask(progress.task.key, progress.task.name, progress.task.flops)
        keys = self._known_relatives().nearest(task, RELATIVES)
        best = [self._store.best_candidates(key, _TRACES_A_RELATIVE) for key in keys]
        return tuple(k.trace for by_rank in zip_longest(*best) for k in by_rank if k is not None)

    def _known_relatives(self) -> Relatives:
        """Arrange what is known of all tasks; again now and then, for it changes slowly."""
        now = self._monotonic()
        if self._relatives is None or now - self._relatives_at > _RELATIVES_KEPT_S:
            self._relatives, self._relatives_at = Relatives(self._store.known_tasks()), now
        return self._relatives

    def _collecting_round(
        self,
        campaign: CampaignRecord,
        device: DeviceRecord,
        groups: Sequence[GroupRecord],
        progress: Sequence[TaskProgress],
        busy: Collection[TaskKey],
    ) -> Lease | None:
        group_by_key = {(g.target, g.fingerprint): g for g in groups}
        tasks = [t for t in progress if (t.task.key.target, t.task.key.fingerprint) in group_by_key]
        choice = choose_collecting_round(
            tasks,
            campaign.spec.trials_per_task,
            busy,
            collecting_round_trials(self._bus.connected_devices()),
        )
        if choice is None:
            return None
        task = choice.progress.task
        spec = RoundSpec(
            workload=task.key.workload,
            workload_digest=task.workload_digest,
            target=task.key.target,
            trials=choice.trials,
            seed=_seed(campaign.spec.seed, task.key, choice.progress.rounds),
            # No model: what would be chosen by its score is what it knows already.
            known=tuple(
                KnownTrace(trace=k.trace, latency_s=k.latency_s, candidate=k.candidate)
                for k in self._store.best_candidates(task.key, COLLECTION_PARENTS)
            ),
            tried=self._store.tried_candidates(task.key),
            measure=COLLECTION_MEASURE,
            search=collecting_search(choice.trials),
        )
        group = group_by_key[task.key.target, task.key.fingerprint]
        return self._grant(campaign, device, group, spec)

    def _benchmark(self, campaign: CampaignRecord, device: DeviceRecord) -> Lease | None:
        for group in groups_of(campaign, device):
            spec = choose_benchmark(self._store, campaign, group, device)
            lease = None if spec is None else self._grant(campaign, device, group, spec)
            if lease is not None:
                return lease
        return None

    def _grant(
        self,
        campaign: CampaignRecord,
        device: DeviceRecord,
        group: GroupRecord,
        work: Work,
    ) -> Lease | None:
        # Of a campaign begun with another TVM the runner, which ends it, may not know yet.
        if not device.can(_KINDS[type(work)]) or not fits_tvm(campaign):
            return None
        now = self._clock()
        token = self._store.next_fencing_token()
        lease = Lease(f"l-{uuid.uuid4().hex[:16]}", token, LEASE_TTL_S, campaign.campaign_id, work)
        record = LeaseRecord(
            lease_id=lease.lease_id,
            fencing_token=token,
            device_id=device.device_id,
            campaign_id=campaign.campaign_id,
            kind=_KINDS[type(work)],
            target=group.target,
            fingerprint=group.fingerprint,
            workload="" if isinstance(work, BenchmarkSpec) else work.workload,
            message=lease_to_proto(lease).SerializeToString(),
            expires_at_unix_s=now + LEASE_TTL_S,
            granted_at_unix_s=now,
        )
        try:
            self._store.grant_lease(record)
        except TuneFleetError as e:
            log.info("lease not granted", device=device.name, why=e.message)
            return None
        return lease


def groups_of(campaign: CampaignRecord, device: DeviceRecord) -> list[GroupRecord]:
    """Return the groups of a campaign that a device belongs to, one for each of its targets."""
    if not matches(campaign.spec.device_selector, device):
        return []
    targets = campaign.spec.targets_for(device)
    return [
        group
        for group in campaign.groups
        if group.target in targets and group.fingerprint == device.fingerprint
    ]


def tasks_of(progress: Sequence[TaskProgress], group: GroupRecord) -> list[TaskProgress]:
    """Return the tasks of one group."""
    return [
        t
        for t in progress
        if (t.task.key.target, t.task.key.fingerprint) == (group.target, group.fingerprint)
    ]


def _seed(campaign_seed: int, key: TaskKey, rounds: int) -> int:
    text = f"{campaign_seed}/{key.workload}/{key.target}/{rounds}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF
