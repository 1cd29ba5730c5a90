"""Takes checked trials into the store, with the devices and tasks they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coordinator.dataset.stats import Stats
from coordinator.state.records import DeviceRecord, TaskKey, TaskRecord
from coordinator.state.store import Store
from coordinator.state.trial_records import ProfileRecord, TrialRecord, WorkloadRecord
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.targets import derive_target

_NAMED = 100
"""Rejected trials that a result names; their number and reasons are always whole."""


class Intake:
    """What one import brings, trial by trial."""

    def __init__(self, store: Store, campaign_id: str, now: float) -> None:
        """Begin.

        Args:
            store: where the trials go.
            campaign_id: the campaign that imports them.
            now: seconds since 1970.
        """
        self._store = store
        self.campaign_id = campaign_id
        self._now = now
        self.profiles: dict[str, ProfileRecord] = {}
        """Devices by id, as far as the dataset names them."""
        self.seen = 0
        self._workloads: dict[str, tuple[WorkloadRecord, str]] = {}
        self._devices: set[tuple[str, str]] = set()
        self._tasks: set[TaskKey] = set()
        self._stats = Stats()
        self._refusals: Counter[str] = Counter()
        self._names: list[str] = []
        self._new = self._known = self._unfeatured = self._without_module = 0

    def add_workload(self, workload: WorkloadRecord, digest: str) -> None:
        """Note a workload; ``digest`` names the blob with its module, empty where there is none."""
        self._workloads[workload.workload] = (workload, digest)

    def refuse(self, name: str, why: str) -> None:
        """Count a trial that cannot be taken in."""
        self.seen += 1
        self._refusals[why] += 1
        if len(self._names) < _NAMED:
            self._names.append(name)

    def take(self, batch: Sequence[tuple[TrialRecord, str]]) -> None:
        """Store trials, each with its device's profile as JSON (empty where it is not known)."""
        fitting: list[TrialRecord] = []
        for record, profile in batch:
            why = self._prepare(record, profile)
            if why:
                self.refuse(record.trial.trial_id, why)
            else:
                fitting.append(record)
        outcome = self._store.import_trials(self.campaign_id, fitting, self._now)
        self._new += outcome.new
        for record in fitting:
            name = record.trial.trial_id
            if name in outcome.rejected:
                self.refuse(name, outcome.rejected[name])
                continue
            self.seen += 1
            self._stats.add_trial(record)
            self._unfeatured += record.trial.features is None
        self._known += len(outcome.stored) - outcome.new

    def result(self) -> dict[str, Any]:
        """Return what came of it, as JSON."""
        return {
            "new": self._new,
            "known": self._known,
            "rejected": sum(self._refusals.values()),
            "refusals": dict(self._refusals.most_common(50)),
            "rejected_names": self._names,
            "unfeatured": self._unfeatured,
            "without_module": self._without_module,
            "stats": self._stats.result(self._store.list_profiles()),
        }

    def _prepare(self, record: TrialRecord, profile: str) -> str:
        """Make sure that a trial's device and task are stored; returns why they cannot be."""
        place = (record.device_id, record.key.fingerprint)
        if place not in self._devices:
            if not profile:
                return "it does not say what its device was"
            why = self._add_device(record, DeviceProfile.from_json(profile))
            if why:
                return why
            self._devices.add(place)
        if record.key not in self._tasks:
            self._add_task(record)
            self._tasks.add(record.key)
        return ""

    def _add_device(self, record: TrialRecord, profile: DeviceProfile) -> str:
        try:
            known = self._store.get_device(record.device_id)
        except TuneFleetError:
            known = None
        if known is not None and known.device_id != record.device_id:
            return f"its device has the id {record.device_id}, which is another device's name"
        if known is not None and not known.imported:
            # What our own agent says of itself is not for a file to change.
            fingerprints = {
                p.profile.fingerprint()
                for p in self._store.list_profiles()
                if p.device_id == record.device_id
            }
            if record.key.fingerprint in fingerprints:
                return ""
            return "its device registered here, but never with that hardware"
        named = self.profiles.get(record.device_id)
        device = DeviceRecord(
            device_id=record.device_id,
            name=known.name if known else (named.name if named else record.device_id),
            profile=profile,
            target=_target(profile, record.key.target),
            imported=True,
        )
        try:
            self._store.put_device(device)
        except TuneFleetError as e:
            if e.reason is not Reason.INVALID_ARGUMENT:
                raise
            # Two machines are often called alike; ids are not.
            renamed = f"{device.name}-{device.device_id}"
            self._store.put_device(replace(device, name=renamed))
        return ""

    def _add_task(self, record: TrialRecord) -> None:
        workload, digest = self._workloads.get(record.key.workload, (None, ""))
        if not digest:
            self._without_module += 1
        task = TaskRecord(
            key=record.key,
            name=record.task or (workload.name if workload else ""),
            weight=max(1, sum(record.sources.values())),
            flops=workload.flops if workload else 0.0,
            workload_digest=digest,
            # Of several campaigns that met the workload each names its own network only.
            sources={**(workload.sources if workload else {}), **record.sources},
        )
        self._store.add_tasks(self.campaign_id, [task])


def _target(profile: DeviceProfile, fallback: str) -> str:
    try:
        return derive_target(profile)
    except ValueError:  # an architecture that only its own agent could name a target for
        return fallback
