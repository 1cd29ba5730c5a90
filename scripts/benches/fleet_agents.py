"""A process full of simulated agents: the real protocol, a connection each, no TVM.

Reads one command a line from stdin, as JSON, and answers each with one line on stdout. What an
agent says and when is what :mod:`agent.session` does; only the search and the measuring are left
out, and the outbox is in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from scripts.benches.fleet_hardware import hardware_of
from scripts.benches.fleet_trials import TrialSource
from tunefleet import __version__
from tunefleet.conversions import profile_to_proto, seconds
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.identity.credentials import CHANNEL_OPTIONS, Credentials
from tunefleet.identity.enrolling import enrol
from tunefleet.identity.keys import new_key
from tunefleet.identity.tokens import parse_token
from tunefleet.protocol import DEVICE_KEY, SPOKEN
from tunefleet.v1 import agent_service_pb2 as pb
from tunefleet.v1 import agent_service_pb2_grpc, lease_pb2, trial_pb2

_ENROLLING = 4
"""Agents of a process that enrol at a time: every process is turned away beyond some."""
_CALL_LIMIT_S = 20.0
_REPORT_LIMIT_S = 60.0
_LONGEST_RETRY_S = 2.0
_BATCH_TRIALS = 64
_RENEWALS_A_TERM = 3
_EARLY = 0.8
"""Share of the wished interval after which a heartbeat is sent."""


@dataclass
class Pace:
    """How fast the devices are."""

    trial_s: float = 0.5
    """Seconds that measuring a candidate takes; 0 for what no device can: none."""
    gathers: bool = True
    """Whether trials are gathered before they are sent, for as long as the coordinator wishes."""


@dataclass
class Counts:
    """What happened since the last reset."""

    acknowledged: int = 0
    rejected: int = 0
    leases: int = 0
    reports: int = 0
    heartbeats: int = 0
    lease_s: list[float] = field(default_factory=list)
    """Seconds that each call of AcquireLease took."""
    work_wait_s: list[float] = field(default_factory=list)
    """Seconds from when a device wanted work until it had some, told to come back or not."""
    report_call_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        """Return them as JSON can have them."""
        return {**vars(self), "errors": dict(self.errors)}


@dataclass
class Fleet:
    """What the agents of a process share."""

    address: str
    source: TrialSource
    pace: Pace = field(default_factory=Pace)
    counts: Counts = field(default_factory=Counts)
    chance: random.Random = field(default_factory=random.Random)


def open_channel(address: str, credentials: Credentials | None) -> grpc.aio.Channel:
    """Open a connection of an agent's own: channels with equal options would share one.

    Args:
        address: ``HOST:PORT``.
        credentials: of the agent; plain text without.
    """
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.min_reconnect_backoff_ms", 10_000),
        ("grpc.max_receive_message_length", 64 * 2**20),
    ]
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(
        address, credentials.channel_credentials(), options=[*options, *CHANNEL_OPTIONS]
    )


class SimulatedAgent:
    """One agent."""

    def __init__(self, number: int, fleet: Fleet) -> None:
        self._fleet = fleet
        self._number = number
        self._id = f"bench-{number:05d}"
        self._metadata = ((DEVICE_KEY, self._id),)
        self._hint = asyncio.Event()
        self._beat = asyncio.Event()
        self._held = ""
        self._dropped = False
        self._heartbeat_s = 5.0
        self._report_s = 2.0
        self._credentials: Credentials | None = None
        self.streaming = False
        self._tasks: list[asyncio.Task[None]] = []

    async def enrol(self, token: str) -> None:
        """Become known to the coordinator, as a new device does once."""
        key = new_key()
        while True:
            try:
                joined = await asyncio.to_thread(
                    enrol, self._fleet.address, parse_token(token), key, self._id
                )
                break
            except TuneFleetError as e:
                if e.reason is not Reason.RATE_LIMITED:
                    raise
                await asyncio.sleep(e.retry_after_s or _LONGEST_RETRY_S)
        self._credentials = joined.credentials

    async def connect(self) -> None:
        """Register, open the control stream and send a heartbeat."""
        self._channel = open_channel(self._fleet.address, self._credentials)
        self._stub: Any = agent_service_pb2_grpc.AgentServiceStub(self._channel)
        registered = await self._call(self._stub.RegisterAgent, self._registration())
        self._heartbeat_s = seconds(registered.heartbeat_interval)
        opened = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen(opened))]
        await opened.wait()
        await self._heartbeat()
        self._tasks += [
            asyncio.create_task(self._heartbeats()),
            asyncio.create_task(self._work()),
        ]

    async def stop(self) -> None:
        """Go, like a device whose power was cut."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    def _registration(self) -> pb.RegisterAgentRequest:
        hardware = hardware_of(self._number)
        return pb.RegisterAgentRequest(
            device_id=self._id,
            name=self._id,
            profile=profile_to_proto(hardware.profile),
            labels={"site": "bench"},
            target=hardware.target,
            agent_version=__version__,
            feature_schema=schema_digest(),
            min_protocol=SPOKEN.oldest,
            max_protocol=SPOKEN.newest,
            capabilities=["benchmark", "featurize", "replay", "round"],
        )

    async def _listen(self, opened: asyncio.Event) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                async for response in self._stub.Control(
                    pb.ControlRequest(device_id=self._id), metadata=self._metadata
                ):
                    self.streaming = True
                    opened.set()
                    if response.hint in {pb.HINT_UNSPECIFIED, pb.HINT_WORK_AVAILABLE}:
                        self._hint.set()
                    elif response.hint == pb.HINT_LEASE_CHANGED:
                        self._beat.set()
            self.streaming = False
            self._fleet.counts.errors["Control ended"] += 1
            await asyncio.sleep(self._fleet.chance.uniform(0, _LONGEST_RETRY_S))

    async def _heartbeats(self) -> None:
        while True:
            wait_s = self._fleet.chance.uniform(0.8, 1.2) * _EARLY * self._heartbeat_s
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._beat.wait()
            self._beat.clear()
            await self._heartbeat()

    async def _heartbeat(self) -> None:
        held = [self._held] if self._held else []
        request = pb.SendHeartbeatRequest(
            device_id=self._id, lease_ids=held, clock_unix_s=time.time()
        )
        response = await self._call(self._stub.SendHeartbeat, request)
        self._fleet.counts.heartbeats += 1
        self._report_s = seconds(response.report_interval)
        self._heartbeat_s = seconds(response.heartbeat_interval)
        if self._held in response.cancelled_lease_ids:
            self._dropped = True

    async def _work(self) -> None:
        wanted_at = time.perf_counter()
        while True:
            self._hint.clear()
            began = time.perf_counter()
            response = await self._call(
                self._stub.AcquireLease, pb.AcquireLeaseRequest(device_id=self._id)
            )
            self._fleet.counts.lease_s.append(time.perf_counter() - began)
            if response.HasField("lease"):
                self._fleet.counts.leases += 1
                self._fleet.counts.work_wait_s.append(time.perf_counter() - wanted_at)
                await self._round(response.lease)
                wanted_at = time.perf_counter()
                continue
            wait_s = self._fleet.chance.uniform(0.8, 1.2) * seconds(response.retry_after)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._hint.wait()

    async def _round(self, lease: lease_pb2.Lease) -> None:
        self._held, self._dropped = lease.lease_id, False
        keeper = asyncio.create_task(self._keep(lease))
        try:
            await self._measure(lease)
            await self._call(
                self._stub.CompleteLease,
                pb.CompleteLeaseRequest(
                    device_id=self._id,
                    lease_id=lease.lease_id,
                    fencing_token=lease.fencing_token,
                    outcome=lease_pb2.LEASE_OUTCOME_DONE,
                    phase_seconds={"fetch": 0.01, "search": 1.5, "measure": 4.5},
                ),
            )
        finally:
            keeper.cancel()
            self._held = ""

    async def _measure(self, lease: lease_pb2.Lease) -> None:
        """Measure candidates and send what was measured every now and then."""
        fleet, pending = self._fleet, list[trial_pb2.Trial]()
        left = lease.round.trials
        sending: asyncio.Task[None] | None = None
        sent_at = time.monotonic()
        while left and not self._dropped:
            pace = fleet.pace
            made = min(left, _BATCH_TRIALS)
            if pace.trial_s:
                # Not one by one: on this machine the coordinator needs the time.
                made = min(left, math.ceil(self._report_s / pace.trial_s))
                await asyncio.sleep(made * pace.trial_s * fleet.chance.uniform(0.8, 1.2))
            pending += [fleet.source.next(lease.lease_id) for _ in range(made)]
            left -= made
            gathered = time.monotonic() - sent_at >= self._report_s or not pace.gathers
            # As an agent does: what was measured is sent while more is.
            if left and gathered and (sending is None or sending.done()):
                sending = asyncio.create_task(self._report(lease, pending))
                pending, sent_at = [], time.monotonic()
        if sending is not None:
            await sending
        if pending and not self._dropped:
            await self._report(lease, pending)

    async def _report(self, lease: lease_pb2.Lease, trials: list[trial_pb2.Trial]) -> None:
        request = pb.ReportTrialsRequest(
            device_id=self._id,
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
            trials=trials,
        )
        began = time.perf_counter()
        response = await self._call(self._stub.ReportTrials, request, _REPORT_LIMIT_S)
        counts = self._fleet.counts
        counts.report_call_s.append(time.perf_counter() - began)
        counts.reports += 1
        counts.acknowledged += len(response.stored_trial_ids)
        counts.rejected += len(response.rejected)

    async def _keep(self, lease: lease_pb2.Lease) -> None:
        ttl_s = seconds(lease.ttl)
        while True:
            await asyncio.sleep(ttl_s / _RENEWALS_A_TERM)
            response = await self._call(
                self._stub.RenewLease,
                pb.RenewLeaseRequest(
                    device_id=self._id,
                    lease_id=lease.lease_id,
                    fencing_token=lease.fencing_token,
                ),
            )
            ttl_s = seconds(response.ttl)

    async def _call(
        self, method: Callable[..., Any], request: Any, limit_s: float = _CALL_LIMIT_S
    ) -> Any:
        """Call until there is an answer."""
        while True:
            try:
                return await method(request, timeout=limit_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as e:
                name = f"{type(request).__name__} {e.code().name}: {(e.details() or '')[:80]}"
                self._fleet.counts.errors[name] += 1
                await asyncio.sleep(self._fleet.chance.uniform(0, _LONGEST_RETRY_S))


async def _serve(fleet: Fleet, agents: list[SimulatedAgent], at_once: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        command = json.loads(line)
        answer: dict[str, Any] = {}
        if command["do"] == "enrol":
            await _each(agents, _ENROLLING, lambda agent: agent.enrol(command["token"]))  # noqa: B023
        elif command["do"] == "connect":
            await _each(agents, at_once, lambda agent: agent.connect())
        elif command["do"] == "pace":
            fleet.pace = Pace(command["trial_s"], command["trial_s"] > 0)
        elif command["do"] == "reset":
            fleet.counts = Counts()
        elif command["do"] == "counts":
            answer = fleet.counts.told()
            answer["streaming"] = sum(agent.streaming for agent in agents)
        elif command["do"] == "stop":
            await asyncio.gather(*(agent.stop() for agent in agents))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


async def _each(
    agents: list[SimulatedAgent],
    at_once: int,
    act: Callable[[SimulatedAgent], Awaitable[None]],
) -> None:
    turn = asyncio.Semaphore(at_once)

    async def wait_and_act(agent: SimulatedAgent) -> None:
        async with turn:
            await act(agent)

    await asyncio.gather(*map(wait_and_act, agents))


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--at-once", type=int, default=64)
    options = parser.parse_args()
    source = TrialSource(options.first)
    fleet = Fleet(options.address, source, chance=random.Random(options.first))
    numbers = range(options.first, options.first + options.agents)
    await _serve(fleet, [SimulatedAgent(number, fleet) for number in numbers], options.at_once)


if __name__ == "__main__":
    asyncio.run(_main())
