"""One run of the agent: everything it does, from registering to giving its lease back."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agent import outbox
from agent.outbox import Outbox
from agent.profile.profiler import measure_profile
from agent.profile.static import read_static_profile
from agent.recorder import Recorder
from agent.session import blobs, workers
from agent.session.blobs import BlobCache
from agent.session.coordinator import Coordinator, Identity
from agent.session.delivery import Delivery
from agent.session.home import Home
from agent.session.leasing import Leasing
from agent.session.membership import Membership
from agent.session.pace import Backoff, Pace
from agent.session.presence import Presence
from agent.session.rpc import open_channel
from agent.session.work import LeaseWork
from agent.session.workers import Workers
from tunefleet.conversions import trial_to_proto
from tunefleet.errors import TuneFleetError
from tunefleet.identity.credentials import Credentials, insecure_wanted
from tunefleet.identity.tokens import JoinToken

GIVE_BACK_LIMIT_S = 10.0
"""A person who pressed Ctrl-C waits so long at most for the last trials to be sent."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Settings:
    """How an agent runs."""

    coordinator: str
    """``HOST:PORT``."""
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    """Canonical target chosen by the person who started the agent; empty to derive it."""
    idle_s: float = workers.DEFAULT_IDLE_S
    outbox_limit_bytes: int = outbox.DEFAULT_LIMIT_BYTES
    blob_limit_bytes: int = blobs.DEFAULT_LIMIT_BYTES
    give_back_limit_s: float = GIVE_BACK_LIMIT_S
    token: JoinToken | None = None
    """To join with, where the agent has not joined yet."""
    insecure: bool = field(default_factory=insecure_wanted)
    """Plain text, on loopback alone."""


class Session:
    """An agent at work in its home."""

    def __init__(self, settings: Settings, home: Home, pace: Pace | None = None) -> None:
        self._settings = settings
        self._home = home
        self._pace = pace or Pace()
        self._active: asyncio.Task[Any] | None = None
        self._membership = (
            None
            if settings.insecure
            else Membership(home.identity, settings.coordinator, home.device_id())
        )
        self._leasing: Leasing | None = None
        self._stopping = False

    def stop(self) -> None:
        """Take no more work, end what is in progress, and let :meth:`run` return."""
        self._stopping = True
        if self._leasing is not None:
            self._leasing.stop()
        if self._active is not None:
            self._active.cancel()

    def drain(self) -> bool:
        """Take no more work, finish what is in progress, and let :meth:`run` return.

        Returns:
            False where there is nothing to finish, or this was called before.
        """
        if self._stopping or self._leasing is None or not self._leasing.held_leases():
            return False
        self._stopping = True
        self._leasing.stop()
        return True

    async def run(self) -> None:
        """Work until stopped.

        Raises:
            TuneFleetError: the coordinator refuses this agent for good.
        """
        settings, home, pace = self._settings, self._home, self._pace
        profile = read_static_profile()
        identity = Identity(home.device_id(), settings.name, settings.labels, settings.target)
        try:
            credentials = await self._join()
        except asyncio.CancelledError:
            if self._stopping:
                return
            raise
        box = await self._open_outbox()
        if box is None:
            return
        coordinator = Coordinator(open_channel(settings.coordinator, credentials), identity, pace)
        hands = Workers(home.logs, profile.logical_cores, pace, settings.idle_s)
        try:
            cache = BlobCache(home.blobs, coordinator, pace, settings.blob_limit_bytes)
            delivery = Delivery(box, coordinator, pace)
            recorder = Recorder(home.logs)
            _recover(recorder, box)
            work = LeaseWork(profile, cache, hands, delivery, log_dir=home.logs, recorder=recorder)
            self._leasing = Leasing(coordinator, delivery, work, pace)
            presence = Presence(coordinator, self._leasing, box.fill, pace)
            await self._run(coordinator, presence, delivery, self._leasing, work)
        finally:
            await hands.close()
            await coordinator.close()
            box.close()

    async def _open_outbox(self) -> Outbox | None:
        """Open it once the disk, which may be full, lets it; ``None`` when stopped meanwhile."""
        backoff = Backoff(self._pace)
        while not self._stopping:
            try:
                return await asyncio.to_thread(
                    Outbox, self._home.outbox, self._settings.outbox_limit_bytes
                )
            except sqlite3.OperationalError as e:
                _log.error("outbox cannot be opened for now", error=str(e))
            self._active = asyncio.create_task(backoff.wait())
            await asyncio.wait({self._active})
        return None

    async def _join(self) -> Credentials | None:
        """Return what the agent shows its coordinator; ``None`` on plain text."""
        if self._membership is None:
            return None
        joining = asyncio.create_task(self._membership.join(self._settings.token, self._pace))
        self._active = joining
        if self._stopping:
            joining.cancel()
        return await joining

    async def _run(
        self,
        coordinator: Coordinator,
        presence: Presence,
        delivery: Delivery,
        leasing: Leasing,
        work: LeaseWork,
    ) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                registered = asyncio.Event()
                self._active = group.create_task(
                    self._serve(coordinator, leasing, work, registered)
                )
                if self._stopping:
                    self._active.cancel()
                await _first_of(registered, self._active)
                loops = [presence.listen(), presence.send_heartbeats(), delivery.run()]
                if self._membership is not None:
                    loops.append(self._membership.renew(coordinator, self._pace))
                background = [group.create_task(loop) for loop in loops]
                await asyncio.wait({self._active})
                await leasing.give_back(self._settings.give_back_limit_s)
                for task in background:
                    task.cancel()
        except BaseExceptionGroup as e:
            raise _first_leaf(e) from None

    async def _serve(
        self,
        coordinator: Coordinator,
        leasing: Leasing,
        work: LeaseWork,
        registered: asyncio.Event,
    ) -> None:
        static = work.profile
        await coordinator.register(static)
        registered.set()
        work.profile = await measure_profile(static, self._home.path, self._settings.target or None)
        await coordinator.register(work.profile)
        await leasing.run()


def _recover(recorder: Recorder, box: Outbox) -> None:
    """Report what ran when the device, or this agent, went down, and remember it."""
    lost = recorder.recover()
    if lost is None:
        return
    trial = lost.trial
    _log.warning("the device went down while a candidate ran", candidate=trial.candidate)
    payload = trial_to_proto(trial).SerializeToString()
    try:
        box.put(trial.trial_id, trial.lease_id, lost.fencing_token, payload)
        recorder.forget()
    except (OSError, sqlite3.OperationalError) as e:  # a full disk must not keep the agent away
        _log.error("what took the device down cannot be kept", error=str(e))


async def _first_of(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the failure to report: one for the person, where there is such a one."""
    found = group.split(TuneFleetError)[0] or group
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
