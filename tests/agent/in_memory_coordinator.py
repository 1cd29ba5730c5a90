"""A coordinator for tests: the agents' services over a real socket, with its state in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import AsyncIterator
from typing import NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tunefleet.conversions import duration
from tunefleet.errors import Reason
from tunefleet.lease_conversions import lease_to_proto
from tunefleet.leases import Lease
from tunefleet.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    blob_service_pb2,
    blob_service_pb2_grpc,
    lease_pb2,
    trial_pb2,
)

CHUNK_BYTES = 1000


class InMemoryCoordinator(
    agent_service_pb2_grpc.AgentServiceServicer, blob_service_pb2_grpc.BlobServiceServicer
):
    """Grants the leases put into it, keeps what agents say, and can be away for a while."""

    def __init__(self) -> None:
        self.port = 0
        self.registrations: list[agent_service_pb2.RegisterAgentRequest] = []
        self.report_interval_s: float | None = None
        self.heartbeats: list[agent_service_pb2.SendHeartbeatRequest] = []
        self.waiting: deque[lease_pb2.Lease] = deque()
        self.active: dict[str, lease_pb2.Lease] = {}
        self.cancelled: set[str] = set()
        self.renewals: Counter[str] = Counter()
        self.acquisitions = 0
        self.completions: list[agent_service_pb2.CompleteLeaseRequest] = []
        self.trials_at_completion: dict[str, int] = {}
        self.trials: dict[str, trial_pb2.Trial] = {}
        self.times_received: Counter[str] = Counter()
        self.batch_sizes: list[int] = []
        self.blobs: dict[str, bytes] = {}
        self.blob_offsets: list[int] = []
        # How it misbehaves:
        self.known_devices: set[str] = set()
        self.register_refusal: tuple[Reason | None, grpc.StatusCode] | None = None
        self.lost_acknowledgements = 0
        self.rejected: dict[str, str] = {}
        self.poison: set[str] = set()
        self.blobs_held: asyncio.Event | None = None
        """Blobs are given out once it is set."""
        self.protocols = (0, 0)
        self.break_blob_after: int | None = None
        self.throttled: deque[float] = deque()
        """Seconds to wait that the next reports are refused with."""
        self.retry_after_s = 300.0
        self.work_expected = False
        self._streams: set[asyncio.Queue[agent_service_pb2.Hint.ValueType]] = set()
        self._server: grpc.aio.Server | None = None

    # Its life

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen: the first time on a free port, later on the same again."""
        self._server = grpc.aio.server(interceptors=[_RequireDeadline()])
        agent_service_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        blob_service_pb2_grpc.add_BlobServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def grant(self, lease: Lease) -> None:
        """Have work for whoever asks next."""
        self.waiting.append(lease_to_proto(lease))

    def hint(self, hint: agent_service_pb2.Hint.ValueType) -> None:
        for stream in self._streams:
            stream.put_nowait(hint)

    def put_blob(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest

    @property
    def streams(self) -> int:
        return len(self._streams)

    # Its services

    async def RegisterAgent(self, request, context):  # noqa: N802
        if self.register_refusal is not None:
            reason, code = self.register_refusal
            await _abort(context, reason, code)
        self.registrations.append(request)
        self.known_devices.add(request.device_id)
        return agent_service_pb2.RegisterAgentResponse(
            coordinator_version="0",
            heartbeat_interval=duration(0.05),
            target="{}",
            min_protocol=self.protocols[0],
            max_protocol=self.protocols[1],
        )

    async def Control(self, request, context) -> AsyncIterator[agent_service_pb2.ControlResponse]:  # noqa: N802
        await self._check(request, context)
        queue: asyncio.Queue[agent_service_pb2.Hint.ValueType] = asyncio.Queue()
        self._streams.add(queue)
        try:
            yield agent_service_pb2.ControlResponse()
            while True:
                yield agent_service_pb2.ControlResponse(hint=await queue.get())
        finally:
            self._streams.discard(queue)

    async def SendHeartbeat(self, request, context):  # noqa: N802
        await self._check(request, context)
        self.heartbeats.append(request)
        wish = self.report_interval_s
        return agent_service_pb2.SendHeartbeatResponse(
            cancelled_lease_ids=[i for i in request.lease_ids if i in self.cancelled],
            report_interval=None if wish is None else duration(wish),
        )

    async def AcquireLease(self, request, context):  # noqa: N802
        await self._check(request, context)
        self.acquisitions += 1
        if not self.waiting:
            return agent_service_pb2.AcquireLeaseResponse(
                retry_after=duration(self.retry_after_s), work_expected=self.work_expected
            )
        lease = self.waiting.popleft()
        self.active[lease.lease_id] = lease
        return agent_service_pb2.AcquireLeaseResponse(lease=lease)

    async def RenewLease(self, request, context):  # noqa: N802
        await self._check(request, context)
        if request.lease_id not in self.active:
            await _abort(context, Reason.LEASE_LOST)
        self.renewals[request.lease_id] += 1
        return agent_service_pb2.RenewLeaseResponse(ttl=self.active[request.lease_id].ttl)

    async def ReportTrials(self, request, context):  # noqa: N802
        await self._check(request, context)
        if self.throttled:
            await _abort(context, Reason.RATE_LIMITED, retry_after_s=self.throttled.popleft())
        if any(trial.trial_id in self.poison for trial in request.trials):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "cannot be read")
        self.batch_sizes.append(len(request.trials))
        for trial in request.trials:
            self.times_received[trial.trial_id] += 1
            if trial.trial_id not in self.rejected:
                self.trials[trial.trial_id] = trial
        if self.lost_acknowledgements:
            self.lost_acknowledgements -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        names = [trial.trial_id for trial in request.trials]
        return agent_service_pb2.ReportTrialsResponse(
            stored_trial_ids=[name for name in names if name in self.trials],
            rejected=[
                agent_service_pb2.RejectedTrial(trial_id=name, reason=self.rejected[name])
                for name in names
                if name in self.rejected
            ],
        )

    async def CompleteLease(self, request, context):  # noqa: N802
        await self._check(request, context)
        if self.active.pop(request.lease_id, None) is None:
            await _abort(context, Reason.LEASE_LOST)
        self.completions.append(request)
        self.trials_at_completion[request.lease_id] = sum(
            trial.lease_id == request.lease_id for trial in self.trials.values()
        )
        return agent_service_pb2.CompleteLeaseResponse()

    async def GetBlob(self, request, context) -> AsyncIterator[blob_service_pb2.GetBlobResponse]:  # noqa: N802
        if self.blobs_held is not None:
            await self.blobs_held.wait()
        if request.digest not in self.blobs:
            await _abort(context, Reason.BLOB_UNKNOWN)
        content = self.blobs[request.digest]
        self.blob_offsets.append(request.offset)
        if request.offset > len(content):
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "the offset is beyond the end")
        for start in range(request.offset, len(content), CHUNK_BYTES):
            if self.break_blob_after is not None and start >= self.break_blob_after:
                self.break_blob_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            yield blob_service_pb2.GetBlobResponse(
                total_bytes=len(content), chunk=content[start : start + CHUNK_BYTES]
            )

    async def _check(self, request, context) -> None:
        if request.device_id not in self.known_devices:
            await _abort(context, Reason.AGENT_UNKNOWN)


class _RequireDeadline(grpc.aio.ServerInterceptor):
    """Refuses every call that could last for ever."""

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)

        async def answer(request, context):
            await _require_deadline(context)
            return await handler.unary_unary(request, context)

        async def stream(request, context):
            await _require_deadline(context)
            async for response in handler.unary_stream(request, context):
                yield response

        make, wrapped = (
            (grpc.unary_stream_rpc_method_handler, stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, answer)
        )
        return make(wrapped, handler.request_deserializer, handler.response_serializer)


async def _require_deadline(context) -> None:
    if context.time_remaining() is None:
        await _abort(context, Reason.INCOMPATIBLE)


async def _abort(
    context,
    reason: Reason | None,
    code: grpc.StatusCode | None = None,
    retry_after_s: float | None = None,
) -> NoReturn:
    """End a call as the coordinator does: the reason travels in google.rpc.ErrorInfo."""
    if reason is None:
        await context.abort(code, "refused")
    code = grpc.StatusCode[reason.value.grpc_status]
    details = [any_pb2.Any()]
    details[0].Pack(error_details_pb2.ErrorInfo(reason=reason.name, domain="tunefleet"))
    if retry_after_s is not None:
        details.append(any_pb2.Any())
        details[1].Pack(error_details_pb2.RetryInfo(retry_delay=duration(retry_after_s)))
    status = rpc_status.to_status(
        status_pb2.Status(code=code.value[0], message=reason.name.lower(), details=details)
    )
    await context.abort(status.code, status.details, status.trailing_metadata)
