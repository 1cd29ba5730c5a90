"""What the services need of the rest of the coordinator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coordinator.state.records import DeviceRecord, LeaseRecord
from tunefleet.leases import BenchmarkResult, FeaturizedTrace, Lease


class Planner(Protocol):
    """Decides what is done next, and takes in what came of it.

    All of it is called outside of the event loop; all but ``featurized`` one call at a time.
    """

    def next_lease(self, device: DeviceRecord) -> Lease | None:
        """Grant, in the store, the device's next piece of work; ``None`` where there is none.

        The device holds no active lease when this is called.
        """

    def expects_work(self, device: DeviceRecord) -> bool:
        """Tell whether there will be work for a device that is given none now, in a minute or so.

        It may come to nothing: a campaign's model may turn out to be broken.
        """

    def benchmark_done(
        self, lease: LeaseRecord, results: Sequence[BenchmarkResult], error: str
    ) -> None:
        """Keep what a benchmark found. May be called again for a lease, when an agent repeats."""

    def featurized(
        self, lease: LeaseRecord, results: Sequence[FeaturizedTrace], error: str
    ) -> None:
        """Keep features that were computed. May be called again for a lease."""

    def round_done(self, lease: LeaseRecord) -> None:
        """Take note that a round has ended, its trials being stored. May be called again."""


class NoWork:
    """A planner for a coordinator that only keeps state."""

    def next_lease(self, device: DeviceRecord) -> Lease | None:  # noqa: ARG002
        """Find nothing to do."""
        return None

    def expects_work(self, device: DeviceRecord) -> bool:  # noqa: ARG002
        """Expect nothing."""
        return False

    def benchmark_done(
        self, lease: LeaseRecord, results: Sequence[BenchmarkResult], error: str
    ) -> None:
        """Forget it."""

    def featurized(
        self, lease: LeaseRecord, results: Sequence[FeaturizedTrace], error: str
    ) -> None:
        """Forget it."""

    def round_done(self, lease: LeaseRecord) -> None:
        """Forget it."""
