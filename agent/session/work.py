"""The work of a lease, from its blobs to its result."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from agent.recorder import Recorder
from agent.replays import ReplayInput, featurize, run_replay
from agent.rounds import RoundError, RoundInput, run_round
from agent.session.benchmarks import run_benchmark
from agent.session.blobs import BlobCache
from agent.session.coordinator import WorkResult
from agent.session.delivery import Delivery
from agent.session.workers import Workers
from tunefleet.devices import DeviceProfile
from tunefleet.leases import BenchmarkSpec, FeaturizeSpec, Lease, ReplaySpec, RoundSpec, Work
from tunefleet.trials import Trial
from tunefleet.v1 import lease_pb2


class LeaseWork:
    """Does what leases ask for, on this device."""

    def __init__(
        self,
        profile: DeviceProfile,
        blobs: BlobCache,
        workers: Workers,
        delivery: Delivery,
        *,
        log_dir: Path,
        recorder: Recorder,
    ) -> None:
        self.profile = profile
        """What the device is; replaced once it has measured itself."""
        self._blobs = blobs
        self._workers = workers
        self._delivery = delivery
        self._log_dir = log_dir
        self._recorder = recorder

    async def run(self, lease: Lease) -> WorkResult:
        """Do the work of a lease. When cancelled, end everything that was started for it.

        Raises:
            TuneFleetError: a blob is unknown or corrupt.
            OSError: the disk is full or failed.
        """
        begun = time.perf_counter()
        paths = await self._blobs.fetch(_blobs_of(lease.work))
        fetched = time.perf_counter()
        result = await self._do(lease, lease.work, paths)
        phases = {"fetch": fetched - begun, **result.phase_seconds}
        return replace(result, phase_seconds=phases)

    def expect(self) -> None:
        """Start the processes that search and measure, which takes seconds."""
        self._workers.warm_up()

    async def _do(self, lease: Lease, work: Work, paths: dict[str, Path]) -> WorkResult:
        if isinstance(work, BenchmarkSpec):
            # Idle workers hold memory and caches that whole models may want.
            await self._workers.close()
            return await run_benchmark(work, paths, self._log_dir / "benchmark.log")

        async def deliver(trial: Trial) -> None:
            await self._delivery.deliver(trial, lease)

        workload_path = paths[work.workload_digest]
        # The one that measures starts while the other one searches.
        self._workers.warm_up()
        try:
            async with self._workers.in_use():
                if isinstance(work, FeaturizeSpec):
                    return await self._featurize(work, workload_path)
                if isinstance(work, ReplaySpec):
                    replay = ReplayInput(
                        lease.lease_id,
                        work,
                        workload_path,
                        self.profile,
                        lease.fencing_token,
                        self._recorder,
                    )
                    report = await run_replay(
                        replay, self._workers.searcher, self._workers.measurer, deliver
                    )
                else:
                    model_path = paths.get(work.model_digest)
                    given = RoundInput(
                        lease.lease_id,
                        work,
                        workload_path,
                        model_path,
                        self.profile,
                        lease.fencing_token,
                        self._recorder,
                    )
                    report = await run_round(
                        given, self._workers.searcher, self._workers.measurer, deliver
                    )
        except RoundError as e:
            outcome = (
                lease_pb2.LEASE_OUTCOME_FAILED if e.permanent else lease_pb2.LEASE_OUTCOME_RETURNED
            )
            return WorkResult(outcome, error=str(e))
        return WorkResult(
            lease_pb2.LEASE_OUTCOME_DONE,
            error=report.model_refusal,
            space_exhausted=report.space_exhausted,
            phase_seconds=report.phase_seconds,
        )

    async def _featurize(self, work: FeaturizeSpec, workload_path: Path) -> WorkResult:
        begun = time.perf_counter()
        threads = self.profile.logical_cores
        results = await featurize(work, workload_path, threads, self._workers.searcher)
        return WorkResult(
            lease_pb2.LEASE_OUTCOME_DONE,
            featurized=results,
            phase_seconds={"featurize": time.perf_counter() - begun},
        )


def _blobs_of(work: Work) -> list[str]:
    if isinstance(work, BenchmarkSpec):
        return _benchmark_blobs(work)
    if isinstance(work, RoundSpec):
        return [work.workload_digest, work.model_digest]
    return [work.workload_digest]


def _benchmark_blobs(spec: BenchmarkSpec) -> list[str]:
    return [
        *(subject.digest for subject in spec.subjects),
        spec.inputs_digest,
        spec.outputs_digest,
    ]
