"""The coordinator as the agent calls it: with deadlines, retries and registering again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio
import structlog

import tunefleet
from agent.measure.outcome import shorten_error
from agent.outbox import Fill
from agent.session.pace import Backoff, Pace
from agent.session.rpc import Unavailable, failure
from tunefleet.conversions import profile_to_proto, seconds
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.lease_conversions import (
    benchmark_result_to_proto,
    featurized_to_proto,
    lease_from_proto,
)
from tunefleet.leases import BenchmarkResult, FeaturizedTrace, Lease
from tunefleet.protocol import DEVICE_KEY, SPOKEN, ProtocolRange
from tunefleet.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    lease_pb2,
    trial_pb2,
)

CALL_LIMIT_S = 20.0
"""Longest time for one attempt; a busy coordinator on a small machine may take seconds."""
_REPORT_LIMIT_S = 60.0
"""A megabyte of trials over a slow uplink."""
_STREAM_LIMIT_S = 15 * 60.0
"""A control stream is opened anew so often, which also finds out a half-open connection."""
_BLOB_LIMIT_S = 10 * 60.0
"""One attempt at a blob; the next goes on where it ended."""
CAPABILITIES = ("benchmark", "featurize", "replay", "round")
"""Kinds of work that this release can do."""
_REMIND_S = 60.0
"""How often the log repeats that the coordinator is away."""

_log = structlog.get_logger(__name__)
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


@dataclass(frozen=True)
class Identity:
    """Who the agent says it is, beside its profile."""

    device_id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True)
class Grant:
    """What came of asking for work."""

    lease: Lease | None
    retry_after_s: float
    """When to ask again where there is none."""
    work_expected: bool = False
    """There will be some soon."""
    refused: lease_pb2.Lease | None = None
    """A lease that this release cannot read."""
    refusal: str = ""


@dataclass(frozen=True)
class WorkResult:
    """How the work of a lease ended."""

    outcome: lease_pb2.LeaseOutcome.ValueType
    error: str = ""
    space_exhausted: bool = False
    benchmark: tuple[BenchmarkResult, ...] = ()
    featurized: tuple[FeaturizedTrace, ...] = ()
    phase_seconds: Mapping[str, float] = field(default_factory=dict)


class Coordinator:
    """Calls to the coordinator.

    Unless told otherwise, a call is repeated until the coordinator answers, however long it is
    away. Every failure that remains is a TuneFleetError.
    """

    def __init__(self, channel: grpc.aio.Channel, identity: Identity, pace: Pace) -> None:
        self._open(channel)
        self._identity = identity
        self._metadata = ((DEVICE_KEY, identity.device_id),)
        self._pace = pace
        self._profile: DeviceProfile | None = None
        self._away_since: float | None = None
        self._reminded = 0.0
        self.heartbeat_interval_s = 10.0
        """As the coordinator wishes since the last heartbeat, older ones since the registration."""
        self.report_interval_s: float | None = None
        """As it wishes since the last heartbeat; older ones have no wish."""

    def _open(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._agents: agent_service_pb2_grpc.AgentServiceAsyncStub = (
            agent_service_pb2_grpc.AgentServiceStub(channel)
        )
        self._blobs: blob_service_pb2_grpc.BlobServiceAsyncStub = (
            blob_service_pb2_grpc.BlobServiceStub(channel)
        )
        self._identities: identity_service_pb2_grpc.IdentityServiceAsyncStub = (
            identity_service_pb2_grpc.IdentityServiceStub(channel)
        )

    async def use(self, channel: grpc.aio.Channel) -> None:
        """Make further calls through another channel; those in progress end by themselves."""
        before = self._channel
        self._open(channel)
        await before.close(_STREAM_LIMIT_S)

    async def close(self) -> None:
        """Close the channel; calls in progress end with an error."""
        await self._channel.close(None)

    async def certificate_left_s(self) -> float | None:
        """Return for how many seconds the certificate is good; ``None`` on plain text."""
        request = identity_service_pb2.WhoAmIRequest()
        response = await self._call(self._identities.WhoAmI, request)
        return seconds(response.valid_for) if response.HasField("valid_for") else None

    async def renew_certificate(
        self, certificate_request: bytes
    ) -> identity_service_pb2.RenewCertificateResponse:
        """Ask for a new certificate, once.

        Raises:
            Unavailable: the coordinator is away.
        """
        request = identity_service_pb2.RenewCertificateRequest(
            certificate_request=certificate_request
        )
        return await self._attempt(self._identities.RenewCertificate, request, CALL_LIMIT_S)

    async def register(self, profile: DeviceProfile) -> str:
        """Announce the agent, or its new profile; returns the target its work is built for."""
        self._profile = profile
        backoff = Backoff(self._pace)
        while True:
            try:
                return await self._register_once()
            except Unavailable as e:
                await backoff.wait(e.retry_after_s)

    async def control(self) -> AsyncIterator[agent_service_pb2.Hint.ValueType]:
        """Yield hints until the stream ends, which is no failure.

        Raises:
            Unavailable: the coordinator is away.
        """
        request = agent_service_pb2.ControlRequest(device_id=self._identity.device_id)
        limit_s = self._pace.spread(_STREAM_LIMIT_S)
        call = self._agents.Control(request, timeout=limit_s, metadata=self._metadata)
        try:
            async for response in call:
                self._heard()
                yield response.hint
        except grpc.aio.AioRpcError as e:
            if e.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                await self._handle(failure(e))
        finally:
            call.cancel()

    async def send_heartbeat(self, lease_ids: Sequence[str], outbox: Fill) -> list[str]:
        """Say that the agent lives, once; returns the leases to drop.

        Raises:
            Unavailable: the coordinator is away.
        """
        request = agent_service_pb2.SendHeartbeatRequest(
            device_id=self._identity.device_id,
            lease_ids=lease_ids,
            outbox_trials=outbox.trials,
            outbox_bytes=outbox.size_bytes,
            outbox_limit_bytes=outbox.limit_bytes,
            clock_unix_s=time.time(),
        )
        response = await self._attempt(self._agents.SendHeartbeat, request, CALL_LIMIT_S)
        wished = response.HasField("report_interval")
        self.report_interval_s = seconds(response.report_interval) if wished else None
        self.heartbeat_interval_s = (
            seconds(response.heartbeat_interval) or self.heartbeat_interval_s
        )
        return list(response.cancelled_lease_ids)

    async def acquire_lease(self) -> Grant:
        """Ask for work."""
        request = agent_service_pb2.AcquireLeaseRequest(device_id=self._identity.device_id)
        response = await self._call(self._agents.AcquireLease, request)
        retry_after_s = seconds(response.retry_after)
        if not response.HasField("lease"):
            return Grant(None, retry_after_s, work_expected=response.work_expected)
        try:
            return Grant(lease_from_proto(response.lease), retry_after_s)
        except (ValueError, KeyError) as e:
            return Grant(None, retry_after_s, refused=response.lease, refusal=str(e))

    async def renew_lease(self, lease: Lease) -> float:
        """Keep a lease; returns the seconds for which it now holds. LEASE_LOST if it ended."""
        request = agent_service_pb2.RenewLeaseRequest(
            device_id=self._identity.device_id,
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
        )
        response = await self._call(self._agents.RenewLease, request)
        return seconds(response.ttl)

    async def report_trials(
        self, lease_id: str, fencing_token: int, trials: Sequence[trial_pb2.Trial]
    ) -> agent_service_pb2.ReportTrialsResponse:
        """Deliver trials of one lease."""
        request = agent_service_pb2.ReportTrialsRequest(
            device_id=self._identity.device_id,
            lease_id=lease_id,
            fencing_token=fencing_token,
            trials=trials,
        )
        return await self._call(self._agents.ReportTrials, request, _REPORT_LIMIT_S)

    async def complete_lease(self, lease_id: str, fencing_token: int, result: WorkResult) -> None:
        """End a lease. LEASE_LOST if it ended already in another way."""
        request = agent_service_pb2.CompleteLeaseRequest(
            device_id=self._identity.device_id,
            lease_id=lease_id,
            fencing_token=fencing_token,
            outcome=result.outcome,
            error=shorten_error(result.error),
            space_exhausted=result.space_exhausted,
            benchmark=[benchmark_result_to_proto(each) for each in result.benchmark],
            phase_seconds=dict(result.phase_seconds),
            featurized=[featurized_to_proto(each) for each in result.featurized],
        )
        await self._call(self._agents.CompleteLease, request)

    async def get_blob(self, digest: str, offset: int) -> AsyncIterator[bytes]:
        """Yield a blob's bytes from an offset on, in chunks.

        Raises:
            Unavailable: the coordinator went away; what came is sound.
        """
        request = blob_service_pb2.GetBlobRequest(digest=digest, offset=offset)
        call = self._blobs.GetBlob(request, timeout=_BLOB_LIMIT_S, metadata=self._metadata)
        try:
            async for response in call:
                self._heard()
                yield response.chunk
        except grpc.aio.AioRpcError as e:
            await self._handle(failure(e))
        finally:
            call.cancel()

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        limit_s: float = CALL_LIMIT_S,
    ) -> _Response:
        backoff = Backoff(self._pace)
        while True:
            try:
                return await self._attempt(method, request, limit_s)
            except Unavailable as e:
                await backoff.wait(e.retry_after_s)

    async def _attempt(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        limit_s: float,
    ) -> _Response:
        try:
            response = await method(request, timeout=limit_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as e:
            await self._handle(failure(e))
            raise Unavailable("the coordinator did not know this agent") from e
        self._heard()
        return response

    async def _handle(self, error: Unavailable | TuneFleetError) -> None:
        """Raise a failure; but where the agent is unknown, register and return."""
        if isinstance(error, Unavailable):
            self._missed(str(error))
            raise error
        self._heard()
        if error.reason is not Reason.AGENT_UNKNOWN or self._profile is None:
            raise error
        _log.info("registering again", why=error.message)
        await self._register_once()

    async def _register_once(self) -> str:
        assert self._profile is not None
        request = agent_service_pb2.RegisterAgentRequest(
            device_id=self._identity.device_id,
            name=self._identity.name,
            profile=profile_to_proto(self._profile),
            labels=dict(self._identity.labels),
            target=self._identity.target,
            agent_version=tunefleet.__version__,
            feature_schema=schema_digest(),
            min_protocol=SPOKEN.oldest,
            max_protocol=SPOKEN.newest,
            capabilities=CAPABILITIES,
        )
        try:
            response = await self._agents.RegisterAgent(
                request, timeout=CALL_LIMIT_S, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as e:
            error = failure(e)
            if isinstance(error, Unavailable):
                self._missed(str(error))
            raise error from e
        self._heard()
        _require_compatible(response)
        self.heartbeat_interval_s = seconds(response.heartbeat_interval) or 10.0
        _log.info(
            "registered",
            coordinator_version=response.coordinator_version,
            target=response.target,
            measured=self._profile.measured is not None,
        )
        return response.target

    def _missed(self, why: str) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = self._reminded = now
            _log.warning("coordinator does not answer, trying again", why=why)
        elif now - self._reminded >= _REMIND_S:
            self._reminded = now
            _log.warning(
                "coordinator still does not answer", away_s=round(now - self._away_since), why=why
            )

    def _heard(self) -> None:
        if self._away_since is not None:
            _log.info("coordinator is back", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None


def _require_compatible(response: agent_service_pb2.RegisterAgentResponse) -> None:
    """Refuse a coordinator that speaks no protocol of ours; most refuse us first.

    Raises:
        TuneFleetError: INCOMPATIBLE.
    """
    told = ProtocolRange.told(response.min_protocol, response.max_protocol)
    if SPOKEN.common(told) is None:
        raise TuneFleetError(
            Reason.INCOMPATIBLE,
            f"coordinator {response.coordinator_version} speaks protocol {told}, agent "
            f"{tunefleet.__version__} {SPOKEN}",
            hint="Install the coordinator's release on this device: pip install "
            f"'tunefleet[agent]=={response.coordinator_version}'",
        )
