"""The work of a lease, from its blobs to its result."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from agent.rounds import RoundError, RoundInput, run_round
from agent.session.benchmarks import run_benchmark
from agent.session.blobs import BlobCache
from agent.session.coordinator import WorkResult
from agent.session.delivery import Delivery
from agent.session.workers import Workers
from tunefleet.devices import DeviceProfile
from tunefleet.leases import BenchmarkSpec, Lease, RoundSpec
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
        log_dir: Path,
    ) -> None:
        self.profile = profile
        """What the device is; replaced once it has measured itself."""
        self._blobs = blobs
        self._workers = workers
        self._delivery = delivery
        self._log_dir = log_dir

    async def run(self, lease: Lease) -> WorkResult:
        """Do the work of a lease. When cancelled, end everything that was started for it.

        Raises:
            TuneFleetError: a blob is unknown or corrupt.
            OSError: the disk is full or failed.
        """
        begun = time.perf_counter()
        if isinstance(lease.work, RoundSpec):
            paths = await self._blobs.fetch([lease.work.workload_digest, lease.work.model_digest])
            fetched = time.perf_counter()
            result = await self._run_round(lease, lease.work, paths)
        else:
            paths = await self._blobs.fetch(_benchmark_blobs(lease.work))
            fetched = time.perf_counter()
            # Idle workers hold memory and caches that whole models may want.
            await self._workers.close()
            result = await run_benchmark(lease.work, paths, self._log_dir / "benchmark.log")
        phases = {"fetch": fetched - begun, **result.phase_seconds}
        return replace(result, phase_seconds=phases)

    async def _run_round(self, lease: Lease, spec: RoundSpec, paths: dict[str, Path]) -> WorkResult:
        async def deliver(trial: Trial) -> None:
            await self._delivery.deliver(trial, lease)

        work = RoundInput(
            lease_id=lease.lease_id,
            spec=spec,
            workload_path=paths[spec.workload_digest],
            model_path=paths.get(spec.model_digest),
            profile=self.profile,
        )
        try:
            async with self._workers.in_use():
                report = await run_round(
                    work, self._workers.searcher, self._workers.measurer, deliver
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


def _benchmark_blobs(spec: BenchmarkSpec) -> list[str]:
    return [
        *(subject.digest for subject in spec.subjects),
        spec.inputs_digest,
        spec.outputs_digest,
    ]
