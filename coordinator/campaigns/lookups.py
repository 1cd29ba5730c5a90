"""What the store tells of a campaign's tasks, put the way decisions are made from it."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.campaigns.gains import Outlook, reachable_rate
from coordinator.campaigns.round_size import JUDGED_TRIALS, lineage
from coordinator.campaigns.scheduler import Predictions
from coordinator.state.records import GroupRecord, ModelVersionRecord, TaskProgress
from coordinator.state.store import Store


def outlook_of(store: Store, group: GroupRecord, tasks: Sequence[TaskProgress]) -> Outlook:
    """Return what may be expected of a group's tasks.

    Whoever grants rounds and whoever ends the campaign must agree on it: both ask here.
    """
    profiles = [d.profile for d in store.list_devices(group.fingerprint)]
    return Outlook(tasks, reachable_rate(profiles, group.target))


def predictions_of(store: Store, model: ModelVersionRecord) -> Predictions:
    """Look up what a model, or one it was trained from, made of a task's last trials."""
    parents = {v.version: v.parent for v in store.list_model_versions()}
    versions = lineage(model.version, parents)
    return lambda key: store.last_predictions(key, versions, JUDGED_TRIALS)
