"""Counts of a dataset, or of what a coordinator has stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from coordinator.state.trial_records import ProfileRecord, TrialCount, TrialRecord


@dataclass
class Group:
    """Trials that have something in common."""

    name: str
    trials: int = 0
    measured: int = 0
    workloads: int = 0
    fastest_s: float | None = None
    slowest_s: float | None = None


@dataclass
class _Counted:
    trials: int = 0
    measured: int = 0
    workloads: set[str] = field(default_factory=set)
    fastest_s: float | None = None
    slowest_s: float | None = None

    def add(self, count: TrialCount) -> None:
        self.trials += count.trials
        self.workloads.add(count.key.workload)
        if count.fastest_s is None or count.slowest_s is None:
            return
        self.measured += count.trials
        self.fastest_s = min(self.fastest_s or count.fastest_s, count.fastest_s)
        self.slowest_s = max(self.slowest_s or 0.0, count.slowest_s)

    def group(self, name: str) -> Group:
        return Group(
            name,
            self.trials,
            self.measured,
            len(self.workloads),
            self.fastest_s,
            self.slowest_s,
        )


class Stats:
    """Adds trials up."""

    def __init__(self) -> None:
        self._all = _Counted()
        self._featured = 0
        self._verdicts: Counter[str] = Counter()
        self._targets: dict[str, _Counted] = {}
        self._sources: dict[str, _Counted] = {}
        self._devices: dict[tuple[str, str], _Counted] = {}

    def add(self, count: TrialCount) -> None:
        """Take in trials that are alike."""
        self._all.add(count)
        self._featured += count.featured
        self._verdicts[count.verdict] += count.trials
        self._targets.setdefault(count.key.target, _Counted()).add(count)
        for source in count.sources or {"": 1}:
            self._sources.setdefault(source, _Counted()).add(count)
        device = (count.device_id, count.key.fingerprint)
        self._devices.setdefault(device, _Counted()).add(count)

    def add_trial(self, record: TrialRecord) -> None:
        """Take in one trial."""
        latency_s = record.trial.latency_s
        self.add(
            TrialCount(
                key=record.key,
                device_id=record.device_id,
                task=record.task,
                sources=record.sources,
                verdict=str(record.trial.verdict),
                trials=1,
                featured=int(record.trial.features is not None),
                fastest_s=latency_s,
                slowest_s=latency_s,
            )
        )

    def result(self, profiles: Iterable[ProfileRecord]) -> dict[str, Any]:
        """Return everything counted, as JSON. Units are in the names.

        Args:
            profiles: of the devices, as far as they are known.
        """
        known = {(p.device_id, p.profile.fingerprint()): p for p in profiles}
        total = self._all.group("")
        return {
            "trials": total.trials,
            "measured": total.measured,
            "featured": self._featured,
            "workloads": total.workloads,
            "fastest_s": total.fastest_s,
            "slowest_s": total.slowest_s,
            "verdicts": dict(self._verdicts.most_common()),
            "targets": _groups(self._targets),
            "sources": _groups(self._sources),
            "devices": [
                _device(place, counted, known.get(place))
                for place, counted in sorted(self._devices.items())
            ],
        }


def _groups(counted: Mapping[str, _Counted]) -> list[dict[str, Any]]:
    groups = [item.group(name) for name, item in counted.items()]
    return [asdict(g) for g in sorted(groups, key=lambda g: (-g.trials, g.name))]


def _device(
    place: tuple[str, str], counted: _Counted, known: ProfileRecord | None
) -> dict[str, Any]:
    device_id, fingerprint = place
    return {
        "device_id": device_id,
        "name": known.name if known else device_id,
        "fingerprint": fingerprint,
        "cpu_model": (known.profile.cpu_model or known.profile.arch) if known else "",
        "trials": counted.trials,
        "workloads": len(counted.workloads),
    }
