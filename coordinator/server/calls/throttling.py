"""What one peer may ask for, so that there is enough for the others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from enum import StrEnum
from typing import Any

import grpc
import structlog

from coordinator.server import limits
from coordinator.server.calls.complaints import Complaints
from coordinator.server.calls.handlers import Inner, Method, OwnMethodsInterceptor
from coordinator.server.calls.peers import host_of, peer_of
from coordinator.server.calls.rates import Rate, Rates
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import agent_service_pb2

_Context = grpc.aio.ServicerContext[Any, Any]

STREAMS_RETRY_S = 1.0
"""When a stream that was one too many may be tried again."""

log = structlog.get_logger()


class Traffic(StrEnum):
    """Classes of calls, of each of which a peer may do so much."""

    REGISTER = "registrations"
    """Counted by host: whoever registers chooses the device's id."""
    REPORT = "trials"
    """Counted in trials, and one for the call."""
    WORK = "agents' calls"
    READ = "questions"
    WRITE = "changes"
    BYTES = "bytes of blobs"
    """Either way. Transfers are slowed down, not refused."""


RATES = {
    Traffic.REGISTER: Rate(limits.REGISTRATIONS_A_S, limits.REGISTRATIONS_AT_ONCE),
    Traffic.REPORT: Rate(limits.TRIALS_A_S, limits.TRIALS_AT_ONCE),
    Traffic.WORK: Rate(limits.AGENT_CALLS_A_S, limits.AGENT_CALLS_AT_ONCE),
    Traffic.READ: Rate(limits.READS_A_S, limits.READS_AT_ONCE),
    Traffic.WRITE: Rate(limits.WRITES_A_S, limits.WRITES_AT_ONCE),
    Traffic.BYTES: Rate(limits.BLOB_BYTES_A_S, limits.BLOB_BYTES_AT_ONCE),
}

_AGENTS = "/tunefleet.v1.AgentService/"
_BLOBS = "/tunefleet.v1.BlobService/"
_READING = ("Get", "List", "Find", "Watch", "WhoAmI")


def traffic_of(method: str) -> Traffic:
    """Return the class of a method, such as ``/tunefleet.v1.AgentService/Control``."""
    if method == _AGENTS + "RegisterAgent":
        return Traffic.REGISTER
    if method == _AGENTS + "ReportTrials":
        return Traffic.REPORT
    if method.startswith(_AGENTS):
        return Traffic.WORK
    return Traffic.READ if method.rpartition("/")[2].startswith(_READING) else Traffic.WRITE


class ThrottlingInterceptor(OwnMethodsInterceptor):
    """Refuses, with the time to wait, what a peer asks for too often or too often at a time."""

    def __init__(self, allowed: Mapping[Traffic, Rate] = RATES) -> None:
        self._allowed = allowed
        self._rates = Rates()
        self._streams: Counter[tuple[str, str]] = Counter()
        self._complaints = Complaints()

    def wrap_unary(self, inner: Inner, method: Method) -> Inner:
        """Refuse calls that are too many, and slow down what is sent."""

        async def call(request: Any, context: _Context) -> Any:
            peer = peer_of(context, request)
            self._admit(peer, method.name, request, context)
            if not method.takes_stream:
                return await inner(request, context)
            with self._open(peer, method.name):
                return await inner(self._slowed(request, peer), context)

        return call

    def wrap_stream(self, inner: Inner, method: Method) -> Inner:
        """Refuse calls that are too many, and slow down what is sent either way."""

        async def call(request: Any, context: _Context) -> AsyncIterator[Any]:
            peer = peer_of(context, request)
            self._admit(peer, method.name, request, context)
            asked = self._slowed(request, peer) if method.takes_stream else request
            with self._open(peer, method.name):
                # What a transfer leaves out is read all the same, to be checked.
                skipped = getattr(request, "offset", 0)
                await self._slow_down(peer, min(max(skipped, 0), limits.MAX_BLOB_BYTES))
                answers: Any = inner(asked, context)
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer
                        await self._slow_down(peer, _chunk_bytes(answer))

        return call

    def _admit(self, peer: str, method: str, request: Any, context: _Context) -> None:
        traffic = traffic_of(method)
        who = host_of(context) if traffic is Traffic.REGISTER else peer
        cost = 1
        if isinstance(request, agent_service_pb2.ReportTrialsRequest):
            cost += len(request.trials)
        wait_s = self._rates.take((who, traffic), self._allowed[traffic], cost)
        if wait_s > 0:
            raise self._refusal(who, f"too many {traffic} come from {who}", wait_s, method)

    @contextmanager
    def _open(self, peer: str, method: str) -> Iterator[None]:
        key = (peer, method)
        most = limits.BLOB_STREAMS if method.startswith(_BLOBS) else limits.STREAMS
        if self._streams[key] >= most:
            why = f"{peer} has {most} streams of this kind open"
            raise self._refusal(peer, why, STREAMS_RETRY_S, method)
        self._streams[key] += 1
        try:
            yield
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]

    async def _slowed(self, requests: AsyncIterator[Any], peer: str) -> AsyncIterator[Any]:
        async for request in requests:
            await self._slow_down(peer, _chunk_bytes(request))
            yield request

    async def _slow_down(self, peer: str, size: int) -> None:
        wait_s = self._rates.owe((peer, Traffic.BYTES), self._allowed[Traffic.BYTES], size)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def _refusal(self, who: str, why: str, wait_s: float, method: str) -> TuneFleetError:
        if self._complaints.due(who):
            log.warning("peer is throttled", peer=who, method=method, why=why)
        return TuneFleetError(Reason.RATE_LIMITED, why, retry_after_s=wait_s)


def _chunk_bytes(message: Any) -> int:
    return len(getattr(message, "chunk", b""))
