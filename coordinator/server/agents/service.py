"""What agents call."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import grpc
import structlog

from coordinator.security.directory import caller
from coordinator.server.agents.heartbeats import Heartbeats, unknown_agent
from coordinator.server.agents.paces import Paces
from coordinator.server.agents.registration import device_from_request, put_under_free_name
from coordinator.server.agents.reports import read_trials
from coordinator.server.agents.turnstile import Turnstile
from coordinator.server.agents.vitals import LatestVitals, Vitals
from coordinator.server.bus import Bus, Notice
from coordinator.server.calls.complaints import Complaints
from coordinator.server.compatibility import CAPABILITIES, require_current, tvm_version
from coordinator.server.disk import DiskGuard
from coordinator.server.draining import Drain
from coordinator.server.grouping import GroupedCalls
from coordinator.server.limits import (
    CLOCK_COMPLAINT_S,
    CLOCK_TOLERANCE_S,
    LEASE_TTL_S,
    MAX_NAME_CHARS,
    MAX_TRIALS_A_REPORT,
    MAX_TRIALS_WAITING,
    TOLD_OF_A_ROUNDS_END,
    TRIALS_WAIT_S,
)
from coordinator.server.ports import Planner
from coordinator.state.records import DeviceRecord, LeaseKind, LeaseRecord, LeaseState, TaskKey
from coordinator.state.store import PreparedReport, Store
from tunefleet import __version__
from tunefleet.conversions import duration
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.lease_conversions import (
    benchmark_result_from_proto,
    featurized_from_proto,
    lease_to_proto,
)
from tunefleet.leases import BenchmarkResult
from tunefleet.protocol import SPOKEN
from tunefleet.trials import LONGEST_S
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import agent_service_pb2_grpc, lease_pb2

log = structlog.get_logger()

_Context = grpc.aio.ServicerContext[Any, Any]

_HINTS = {
    Notice.OPENED: pb.HINT_UNSPECIFIED,
    Notice.WORK: pb.HINT_WORK_AVAILABLE,
    Notice.LEASES: pb.HINT_LEASE_CHANGED,
    Notice.STOPPING: pb.HINT_STOPPING,
}
_MAX_PHASES = 64
_OUTCOMES = {
    lease_pb2.LEASE_OUTCOME_DONE: LeaseState.DONE,
    lease_pb2.LEASE_OUTCOME_FAILED: LeaseState.FAILED,
    lease_pb2.LEASE_OUTCOME_RETURNED: LeaseState.RETURNED,
}


@dataclass(frozen=True)
class _Found:
    """What there is to do for a device."""

    device: str
    """Its name."""
    lease: lease_pb2.Lease | None = None
    work_expected: bool = False


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Registers agents, leases work to them and takes in what they found."""

    def __init__(
        self,
        store: Store,
        planner: Planner,
        bus: Bus,
        *,
        disk: DiskGuard,
        drain: Drain,
        vitals: LatestVitals,
        calls: GroupedCalls,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._calls = calls
        self._heartbeats = Heartbeats(store, calls, clock)
        self._planner = planner
        self._bus = bus
        self._disk = disk
        self._drain = drain
        self._vitals = vitals
        self._paces = Paces(bus)
        self._turnstile = Turnstile()
        self._wrong_clocks = Complaints(interval_s=CLOCK_COMPLAINT_S)
        self._clock = clock

    async def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: _Context
    ) -> pb.RegisterAgentResponse:
        """Take in what an agent says of its device."""
        device = device_from_request(request, self._clock())
        # What an admin wrote into the token is not the agent's to change.
        device = replace(device, labels={**device.labels, **dict(caller.get().labels)})
        device = await self._calls.run(partial(put_under_free_name, self._store, device))
        log.info("agent registered", device=device.name, target=device.target, ready=device.ready)
        if device.ready:
            self._bus.notify_work()
        return pb.RegisterAgentResponse(
            coordinator_version=__version__,
            heartbeat_interval=duration(self._paces.heartbeat_interval_s()),
            target=device.target,
            protocol=device.protocol,
            min_protocol=SPOKEN.oldest,
            max_protocol=SPOKEN.newest,
            tvm_version=tvm_version(),
            capabilities=CAPABILITIES,
        )

    async def Control(
        self, request: pb.ControlRequest, context: _Context
    ) -> AsyncIterator[pb.ControlResponse]:
        """Send hints until the agent goes or the coordinator stops."""
        await self._device(request.device_id)
        async with aclosing(self._bus.watch_device(request.device_id)) as notices:
            async for notice in notices:
                yield pb.ControlResponse(hint=_HINTS[notice])

    async def SendHeartbeat(
        self, request: pb.SendHeartbeatRequest, context: _Context
    ) -> pb.SendHeartbeatResponse:
        """Note that the agent lives; say which of its leases are not its any more."""
        offset_s = self._clock_offset_s(request)
        held = await self._heartbeats.note(request.device_id)
        self._vitals.note(
            request.device_id,
            Vitals(
                request.outbox_trials,
                request.outbox_bytes,
                request.outbox_limit_bytes,
                offset_s,
            ),
        )
        return pb.SendHeartbeatResponse(
            cancelled_lease_ids=[name for name in request.lease_ids if name != held],
            report_interval=duration(self._paces.report_interval_s()),
            heartbeat_interval=duration(self._paces.heartbeat_interval_s()),
        )

    def _clock_offset_s(self, request: pb.SendHeartbeatRequest) -> float | None:
        """Return how far a device's clock is ahead, and tell where it is far off, once an hour.

        Nothing depends on it: leases last for a time, not until one, and certificates are renewed
        by our clock. But people who read a device's log should know.
        """
        if not request.HasField("clock_unix_s") or not math.isfinite(request.clock_unix_s):
            return None
        offset_s = request.clock_unix_s - self._clock()
        if abs(offset_s) > CLOCK_TOLERANCE_S and self._wrong_clocks.due(request.device_id):
            log.warning("clock is wrong", device=request.device_id, ahead_s=round(offset_s))
        return offset_s

    async def AcquireLease(
        self, request: pb.AcquireLeaseRequest, context: _Context
    ) -> pb.AcquireLeaseResponse:
        """Bring the lease that the device holds already, or a new one, or none."""
        wait_s = self._turnstile.wait_s(request.device_id)
        if wait_s:
            return pb.AcquireLeaseResponse(retry_after=duration(wait_s))
        with self._turnstile.passing():
            found = await self._calls.run(partial(self._find_work, request.device_id))
        if found.lease is None:
            return pb.AcquireLeaseResponse(
                retry_after=duration(self._paces.retry_after_s()), work_expected=found.work_expected
            )
        self._bus.device_works(request.device_id)
        log.info("lease granted", device=found.device, lease=found.lease.lease_id)
        return pb.AcquireLeaseResponse(lease=found.lease)

    def _find_work(self, device_id: str) -> _Found:
        device = self._find_device(device_id)
        self._bus.device_waits(device_id, device.fingerprint)
        held = self._store.active_lease(device_id)
        if held is not None:
            return _Found(device.name, self._begin_anew(held))
        if not device.ready or not self._drain.gives_work or device.draining:
            return _Found(device.name)
        require_current(device)
        self._disk.require_room()
        lease = self._planner.next_lease(device)
        if lease is None:
            return _Found(device.name, work_expected=self._planner.expects_work(device))
        return _Found(device.name, lease_to_proto(lease))

    async def RenewLease(
        self, request: pb.RenewLeaseRequest, context: _Context
    ) -> pb.RenewLeaseResponse:
        """Prolong a lease."""
        expires_at = self._clock() + LEASE_TTL_S
        await self._calls.run(
            partial(
                self._store.renew_lease,
                request.lease_id,
                request.fencing_token,
                expires_at,
                device_id=request.device_id,
            )
        )
        return pb.RenewLeaseResponse(ttl=duration(LEASE_TTL_S))

    async def ReportTrials(
        self, request: pb.ReportTrialsRequest, context: _Context
    ) -> pb.ReportTrialsResponse:
        """Store trials; those that are named in the answer need not be sent again."""
        if len(request.trials) > MAX_TRIALS_A_REPORT:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"a report carries {MAX_TRIALS_A_REPORT} trials at the most, not "
                f"{len(request.trials)}",
            )
        if self._calls.trials_waiting > MAX_TRIALS_WAITING:
            raise TuneFleetError(
                Reason.RATE_LIMITED,
                "the coordinator has more trials to store than it can hold",
                retry_after_s=TRIALS_WAIT_S,
            )
        unreadable: dict[str, str] = {}
        outcome = await self._calls.ingest(
            partial(self._read, request, unreadable), len(request.trials), self._clock()
        )
        rejected = unreadable | dict(outcome.rejected)
        if rejected:
            log.warning("trials rejected", lease=request.lease_id, reasons=set(rejected.values()))
        if outcome.new:
            self._bus.notify_campaign(outcome.campaign_id)
        return pb.ReportTrialsResponse(
            stored_trial_ids=outcome.stored,
            rejected=[
                pb.RejectedTrial(trial_id=name, reason=why) for name, why in rejected.items()
            ],
        )

    async def CompleteLease(
        self, request: pb.CompleteLeaseRequest, context: _Context
    ) -> pb.CompleteLeaseResponse:
        """End a lease and pass on what came of it."""
        state = _OUTCOMES.get(request.outcome)
        if state is None:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT, f"the outcome {request.outcome} is not known"
            )
        try:
            phases = _phase_seconds(request.phase_seconds)
            results = [benchmark_result_from_proto(result) for result in request.benchmark]
        except ValueError as e:
            raise TuneFleetError(Reason.INVALID_ARGUMENT, str(e)) from e
        lease = await self._calls.run(partial(self._end_lease, request, state, phases, results))
        log.info("lease ended", lease=lease.lease_id, state=state, error=request.error)
        if lease.kind is LeaseKind.FEATURIZE and state is not LeaseState.RETURNED:
            # In no group: it may take seconds.
            await asyncio.to_thread(self._featurized, lease, request.featurized, request.error)
        if lease.kind.measures:
            self._bus.notify_work(lease.fingerprint, TOLD_OF_A_ROUNDS_END)
        else:
            self._bus.notify_work()
        self._bus.notify_campaign(lease.campaign_id)
        return pb.CompleteLeaseResponse()

    def _end_lease(
        self,
        request: pb.CompleteLeaseRequest,
        state: LeaseState,
        phases: Mapping[str, float],
        results: Sequence[BenchmarkResult],
    ) -> LeaseRecord:
        lease = self._store.end_lease(
            request.lease_id,
            request.fencing_token,
            state,
            request.error,
            phases,
            device_id=request.device_id,
        )
        if lease.kind is LeaseKind.BENCHMARK and state is not LeaseState.RETURNED:
            self._planner.benchmark_done(lease, results, request.error)
        elif request.space_exhausted and lease.kind is LeaseKind.ROUND:
            key = TaskKey(lease.workload, lease.target, lease.fingerprint)
            self._store.mark_exhausted(lease.campaign_id, key)
        if lease.kind.measures:
            self._planner.round_done(lease)
        return lease

    def _featurized(
        self, lease: LeaseRecord, results: Sequence[lease_pb2.FeaturizedTrace], error: str
    ) -> None:
        try:
            found = [featurized_from_proto(result) for result in results]
        except ValueError as e:
            found, error = [], str(e)
        self._planner.featurized(lease, found, error)

    def _read(self, request: pb.ReportTrialsRequest, unreadable: dict[str, str]) -> PreparedReport:
        """Make a report ready, and note by name why trials cannot be read."""
        trials, found = read_trials(request.trials)
        unreadable.update(found)
        return self._store.prepare_report(
            request.device_id, request.lease_id, request.fencing_token, trials
        )

    async def _device(self, device_id: str) -> DeviceRecord:
        return await asyncio.to_thread(self._find_device, device_id)

    def _find_device(self, device_id: str) -> DeviceRecord:
        try:
            device = self._store.get_device(device_id)
        except TuneFleetError as e:
            raise unknown_agent(device_id) from e
        if device.device_id != device_id:  # it is another device's name
            raise unknown_agent(device_id)
        return device

    def _begin_anew(self, held: LeaseRecord) -> lease_pb2.Lease:
        """Return the lease that the device holds as it was granted, with its time begun anew."""
        expires_at = self._clock() + LEASE_TTL_S
        self._store.renew_lease(held.lease_id, held.fencing_token, expires_at)
        message = lease_pb2.Lease.FromString(held.message)
        message.ttl.CopyFrom(duration(LEASE_TTL_S))
        return message


def _phase_seconds(phases: Mapping[str, float]) -> dict[str, float]:
    """Read what the phases of a piece of work took. Raises ValueError."""
    if len(phases) > _MAX_PHASES:
        raise ValueError(f"{len(phases)} phases are more than {_MAX_PHASES}")
    for name, seconds in phases.items():
        if not name.isprintable() or len(name) > MAX_NAME_CHARS or not 0 <= seconds <= LONGEST_S:
            raise ValueError(f"the phase {name!r:.80} cannot take {seconds} s")
    return dict(phases)
