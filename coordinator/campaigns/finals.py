"""The end of tuning: the best schedules are measured again, so that not the luckiest one is chosen.

The fastest of many noisy measurements is too good to be true. The few best schedules of each task
that matters meet once more, in turns over all tasks, so that what drifts meets all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from coordinator.campaigns.featurizing import fitting
from coordinator.campaigns.scheduler import Choice
from coordinator.state.estimates import Estimates
from coordinator.state.records import (
    CampaignRecord,
    CampaignState,
    GroupRecord,
    LeaseKind,
    LeaseState,
    TaskKey,
    TaskProgress,
)
from coordinator.state.store import Store
from coordinator.state.trial_records import MeasuredTrial
from tunefleet.errors import TuneFleetError
from tunefleet.leases import NamedTrace, ReplaySpec

FINALS_ACTIVITY = "measuring the best schedules again"

FINALISTS = 4
"""Schedules of a task that are measured again, at the most."""

NEAR = 1.15
"""They are within this factor of the best one: about what luck makes of equals."""

PASSES = 2
"""How often each is measured again. Its median is over three then, of which luck chose one."""

TIME_SHARE = 0.08
"""Share of a time limit that is kept for this, at the most."""

TRIALS_SHARE = 0.2
"""Measurements this makes for each one that tuning made, at the most."""

LEAST_SHARE = 0.01
"""Tasks below this share of the network's latency are left as they are."""

_MOST_LEASES = PASSES + 2
"""A task whose leases came to nothing so often is left as it is."""


@dataclass(frozen=True)
class Final:
    """What is measured again of one task."""

    progress: TaskProgress
    trial_ids: tuple[str, ...]
    """The fastest trial of each schedule."""


def contenders(trials: Sequence[MeasuredTrial]) -> tuple[str, ...]:
    """Choose what to measure again of one task.

    Args:
        trials: all of its record set that have a latency, the fastest first.

    Returns:
        The fastest trial of each of the schedules, none where only one is near the best or where
        all that are have been measured often enough.
    """
    estimates, fastest = Estimates(), dict[str, str]()
    for trial in trials:
        estimates.add(trial.candidate, trial.latency_s)
        fastest.setdefault(trial.candidate, trial.trial_id)
    best_s = estimates.best_s
    if best_s is None:
        return ()
    near = [name for name, latency_s in estimates.by_estimate() if latency_s <= NEAR * best_s]
    chosen = near[:FINALISTS]
    if estimates.best not in chosen:
        chosen[-1] = estimates.best
    settled = all(estimates.count(name) > PASSES for name in chosen)
    return () if settled or len(chosen) < 2 else tuple(fastest[name] for name in chosen)


def choose_finals(store: Store, campaign: CampaignRecord) -> list[Final]:
    """Choose what a campaign measures again, the heaviest tasks of each group first."""
    progress = store.task_progress(campaign.campaign_id)
    return [
        final for group in campaign.groups for final in _of_group(store, _tasks(progress, [group]))
    ]


def _of_group(store: Store, tasks: Sequence[TaskProgress]) -> list[Final]:
    network_s = sum(_weighted_s(t) for t in tasks)
    left = TRIALS_SHARE * sum(t.trials for t in tasks)
    finals = []
    for task in _heaviest_first(tasks):
        if _weighted_s(task) < LEAST_SHARE * network_s or left < 2 * PASSES:
            break
        names = contenders(store.measured_trials(task.task.key))[: int(left / PASSES)]
        if names:
            left -= PASSES * len(names)
            finals.append(Final(task, names))
    return finals


def reserved_s(store: Store, campaign: CampaignRecord) -> float:
    """Return the seconds of a campaign's time limit to be kept.

    0 where nothing would be done, or where some task was never tried: that comes first.
    """
    tasks = store.task_progress(campaign.campaign_id)
    if any(t.best_s is None and t.rounds == 0 and not t.task.exhausted for t in tasks):
        return 0.0
    finals, limit_s = choose_finals(store, campaign), campaign.spec.time_limit_s or 0.0
    # The search that is part of a trial's time stands for what applying the schedules takes.
    known = [f.progress.trial_s for f in finals if f.progress.trial_s is not None]
    usual_s = statistics.median(known) if known else 0.0
    needed_s = sum(
        PASSES * len(f.trial_ids) * (usual_s if f.progress.trial_s is None else f.progress.trial_s)
        for f in finals
    )
    return min(needed_s, TIME_SHARE * limit_s)


def finals_are_due(store: Store, campaign: CampaignRecord, spent_s: float) -> bool:
    """Tell whether only that time is left of a campaign's time limit.

    Args:
        store: what has been measured.
        campaign: one that tunes.
        spent_s: seconds that it has tuned for.
    """
    limit_s = campaign.spec.time_limit_s
    if limit_s is None or spent_s < (1 - TIME_SHARE) * limit_s:
        return False
    kept_s = reserved_s(store, campaign)
    return kept_s > 0 and spent_s >= limit_s - kept_s


def trials_in_time(store: Store, campaign: CampaignRecord, choice: Choice, now: float) -> int:
    """Return how many trials of a round there is time for before the finals, one at the least."""
    limit_s, trial_s = campaign.spec.time_limit_s, choice.progress.trial_s
    if limit_s is None or trial_s is None:
        return choice.trials
    end_s = campaign.tuned_for_s(now) + choice.trials * trial_s
    if end_s <= (1 - TIME_SHARE) * limit_s:
        return choice.trials
    over_s = end_s - (limit_s - reserved_s(store, campaign))
    return max(1, choice.trials - max(0, round(over_s / trial_s)))


def begin_finals(store: Store, campaign: CampaignRecord, why: str) -> bool:
    """Plan what is measured again, and remember that the campaign does nothing else from now on.

    Args:
        store: takes the plan.
        campaign: one that tunes.
        why: it tries no further schedules.

    Returns:
        Whether there is anything to measure again. The campaign knows why it tries no further
        schedules then, unless it was paused or cancelled meanwhile.
    """
    finals = choose_finals(store, campaign)
    for final in finals:
        store.plan_replays(campaign.campaign_id, final.progress.task.key, final.trial_ids)
    if finals:
        with suppress(TuneFleetError):
            store.update_campaign(
                campaign.campaign_id,
                [CampaignState.TUNING],
                tuning_ended=why,
                activity=FINALS_ACTIVITY,
            )
    return bool(finals)


def in_finals(campaign: CampaignRecord) -> bool:
    """Tell whether a campaign that tunes measures its best schedules again and nothing else."""
    return campaign.state is CampaignState.TUNING and bool(campaign.tuning_ended)


def choose_final(
    store: Store,
    campaign: CampaignRecord,
    groups: Sequence[GroupRecord],
    busy: Collection[TaskKey],
) -> tuple[GroupRecord, ReplaySpec] | None:
    """Choose schedules of one task to measure again.

    Args:
        store: where the plan is.
        campaign: one whose best schedules are measured again.
        groups: its groups that the device belongs to.
        busy: tasks that another device is at work on.

    Returns:
        The group and the work, or ``None`` where nothing is to be done now.
    """
    by_key = {(g.target, g.fingerprint): g for g in groups}
    tasks = _tasks(store.task_progress(campaign.campaign_id), groups)
    given_up = _given_up(store, campaign)
    open_tasks = [
        t.task
        for t in _heaviest_first(tasks)
        if t.task.key not in given_up and t.task.key not in busy
    ]
    for times in range(1, PASSES + 1):
        for task in open_tasks:
            pending = store.pending_replays(campaign.campaign_id, task.key, FINALISTS, times=times)
            if pending:
                traces = fitting([NamedTrace(k.candidate, k.trace) for k in pending])
                work = ReplaySpec(task.key.workload, task.workload_digest, task.key.target, traces)
                return by_key[task.key.target, task.key.fingerprint], work
    return None


def finals_are_over(store: Store, campaign: CampaignRecord) -> bool:
    """Tell whether everything planned was measured, or never will be."""
    return choose_final(store, campaign, campaign.groups, set()) is None


def _given_up(store: Store, campaign: CampaignRecord) -> set[TaskKey]:
    ended = [state for state in LeaseState if state is not LeaseState.ACTIVE]
    counts: dict[TaskKey, int] = {}
    for lease in store.list_leases(campaign.campaign_id, ended, [LeaseKind.REPLAY]):
        key = TaskKey(lease.workload, lease.target, lease.fingerprint)
        counts[key] = counts.get(key, 0) + 1
    return {key for key, count in counts.items() if count >= _MOST_LEASES}


def _tasks(progress: Iterable[TaskProgress], groups: Sequence[GroupRecord]) -> list[TaskProgress]:
    wanted = {(g.target, g.fingerprint) for g in groups}
    return [t for t in progress if (t.task.key.target, t.task.key.fingerprint) in wanted]


def _heaviest_first(tasks: Iterable[TaskProgress]) -> list[TaskProgress]:
    return sorted(tasks, key=_weighted_s, reverse=True)


def _weighted_s(progress: TaskProgress) -> float:
    return progress.task.weight * (progress.best_s or 0.0)
