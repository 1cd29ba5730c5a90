"""The session's parts put together for tests, quick to retry, with work of the test's choice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from in_memory_coordinator import InMemoryCoordinator

from agent.outbox import Outbox
from agent.profile import cache
from agent.profile.cache import Measurement
from agent.profile.static import read_static_profile
from agent.session.coordinator import Coordinator, Identity, WorkResult
from agent.session.delivery import Delivery
from agent.session.leasing import Leasing
from agent.session.pace import Pace
from agent.session.presence import Presence
from agent.session.rpc import open_channel
from tunefleet.devices import DeviceProfile, MeasuredProfile
from tunefleet.leases import Lease, RoundSpec
from tunefleet.trials import Trial, Verdict, trial_id
from tunefleet.v1 import lease_pb2

DEVICE_ID = "11111111-2222-3333-4444-555555555555"
TARGET = '{"kind":"llvm","num-cores":1}'
QUICK = Pace(first_retry_s=0.01, longest_retry_s=0.05, report_s=0.01)
DONE = WorkResult(lease_pb2.LEASE_OUTCOME_DONE)


def make_lease(name: str = "lease-1", ttl_s: float = 30.0, token: int = 7) -> Lease:
    work = RoundSpec(
        workload="00000000000000aa", workload_digest="0" * 64, target=TARGET, trials=4, seed=1
    )
    return Lease(name, token, ttl_s, "campaign-1", work)


def make_trial(lease_id: str, number: int) -> Trial:
    candidate = f"{number:016x}"
    return Trial(
        trial_id=trial_id(lease_id, candidate, 0),
        lease_id=lease_id,
        candidate=candidate,
        trace="[[],[]]",
        verdict=Verdict.OK,
        samples_s=(0.001,),
    )


def remember_measured_profile(home: Path) -> None:
    """Have an agent with this home find its measured profile, so that it need not measure."""
    static = read_static_profile()
    measurement = Measurement(MeasuredProfile(gflops_single_core=100.0), llvm_cpu=None)
    cache.store(home, cache.cache_key(static, None), measurement)


class ChosenWork:
    """Does what the test says, and notes what was started and cancelled."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.expected = 0
        self.action: Callable[[Lease], Awaitable[WorkResult]] = self._finish

    async def run(self, lease: Lease) -> WorkResult:
        self.started.append(lease.lease_id)
        try:
            return await self.action(lease)
        except asyncio.CancelledError:
            self.cancelled.append(lease.lease_id)
            raise

    def expect(self) -> None:
        self.expected += 1

    async def _finish(self, lease: Lease) -> WorkResult:
        return DONE


@dataclass
class Rig:
    """An agent without a process: everything but the profile and the workers."""

    server: InMemoryCoordinator
    coordinator: Coordinator
    outbox: Outbox
    delivery: Delivery
    leasing: Leasing
    presence: Presence
    work: ChosenWork
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, loop: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something until the rig is taken apart."""
        self.tasks.append(asyncio.create_task(loop))
        return self.tasks[-1]

    def start_all(self) -> asyncio.Task[None]:
        """Start everything; returns the task that takes leases."""
        self.start(self.delivery.run())
        self.start(self.presence.listen())
        self.start(self.presence.send_heartbeats())
        return self.start(self.leasing.run())

    async def deliver(self, lease: Lease, count: int, first: int = 0) -> set[str]:
        """Store trials of a lease; returns their ids."""
        numbers = range(first, first + count)
        trials = [make_trial(lease.lease_id, number) for number in numbers]
        for trial in trials:
            await self.delivery.deliver(trial, lease)
        return {trial.trial_id for trial in trials}


@asynccontextmanager
async def open_rig(
    server: InMemoryCoordinator,
    folder: Path,
    outbox_limit_bytes: int = 2**20,
    report_s: float = QUICK.report_s,
) -> AsyncIterator[Rig]:
    """Put an agent together that is registered with the server."""
    channel = open_channel(server.address)
    coordinator = Coordinator(channel, Identity(DEVICE_ID, "device"), QUICK)
    outbox = Outbox(folder / "outbox.db", outbox_limit_bytes)
    work = ChosenWork()
    delivery = Delivery(outbox, coordinator, replace(QUICK, report_s=report_s))
    leasing = Leasing(coordinator, delivery, work, QUICK)
    presence = Presence(coordinator, leasing, outbox.fill, QUICK)
    await coordinator.register(DeviceProfile("x86_64", None, (), None, 1))
    rig = Rig(server, coordinator, outbox, delivery, leasing, presence, work)
    try:
        yield rig
    finally:
        for task in rig.tasks:
            task.cancel()
        ended = await asyncio.gather(*rig.tasks, return_exceptions=True)
        await channel.close(None)
        outbox.close()
        assert all(isinstance(end, asyncio.CancelledError | None) for end in ended), ended
