"""From the outbox to the coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator, Sequence

import structlog
from google.protobuf.message import DecodeError

from agent.outbox import Batch, Outbox, StoredTrial
from agent.session.coordinator import Coordinator
from agent.session.pace import Backoff, Pace
from agent.session.rpc import FATAL
from tunefleet.conversions import trial_to_proto
from tunefleet.errors import TuneFleetError
from tunefleet.leases import Lease
from tunefleet.trials import Trial
from tunefleet.v1 import trial_pb2

_LOOK_AGAIN_S = 2.0
"""How often a disk that was full is looked at."""

MAX_BATCH_TRIALS = 64
MAX_BATCH_BYTES = 2**20
"""A quarter of what gRPC accepts in one message."""

_log = structlog.get_logger(__name__)


class Delivery:
    """Stores trials and sends them, oldest first, until each is acknowledged."""

    def __init__(self, outbox: Outbox, coordinator: Coordinator, pace: Pace) -> None:
        self._outbox = outbox
        self._coordinator = coordinator
        self._pace = pace
        self._stored = asyncio.Event()
        self._discarded = asyncio.Condition()
        self._awaited = 0
        """Who waits for trials to be acknowledged."""
        self._hurry = asyncio.Event()

    async def deliver(self, trial: Trial, lease: Lease) -> None:
        """Put a trial on the disk, from where it will be sent.

        It is stored when this returns, also when this is cancelled.

        Raises:
            sqlite3.OperationalError: the disk is full or failed.
        """
        payload = trial_to_proto(trial).SerializeToString()
        storing = asyncio.ensure_future(
            asyncio.to_thread(
                self._outbox.put, trial.trial_id, lease.lease_id, lease.fencing_token, payload
            )
        )
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            await storing
            raise
        finally:
            self._stored.set()

    async def flushed(self, lease_id: str) -> None:
        """Wait until every stored trial of a lease is acknowledged."""
        with self._hurrying():
            async with self._discarded:
                await self._discarded.wait_for(lambda: self._outbox.pending(lease_id) == 0)

    async def room(self) -> None:
        """Wait until neither the outbox nor its disk is full."""
        if not self._outbox.full:
            return
        what = "disk" if self._outbox.disk_is_short else "outbox"
        _log.warning("no room, taking no work", full=what, trials=self._outbox.pending())
        with self._hurrying():
            while self._outbox.full:
                # Others fill the disk and make room on it, and tell nobody.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_AGAIN_S), self._discarded:
                        await self._discarded.wait()
        _log.info("there is room again")

    async def run(self) -> None:
        """Send for ever. A TuneFleetError is one that no retry cures."""
        backoff = Backoff(self._pace)
        while True:
            self._stored.clear()
            try:
                batch = await asyncio.to_thread(
                    self._outbox.next_batch, MAX_BATCH_TRIALS, MAX_BATCH_BYTES
                )
                if batch is None:
                    await self._stored.wait()
                    continue
                done = await self._send(batch)
                await asyncio.to_thread(self._outbox.discard, done)
            except sqlite3.OperationalError as e:
                _log.error("outbox cannot be used for now", error=str(e))
                await backoff.wait()
                continue
            async with self._discarded:
                self._discarded.notify_all()
            if not done:
                await backoff.wait()
                continue
            backoff.reset()
            if len(batch.trials) < MAX_BATCH_TRIALS:
                await self._gather()

    async def _gather(self) -> None:
        """Let more trials come, which then travel together, unless somebody waits for these."""
        wished_s = self._coordinator.report_interval_s
        interval_s = self._pace.report_s if wished_s is None else wished_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(
                self._pace.spread(min(max(0.0, interval_s), self._pace.longest_report_s))
            ):
                await self._hurry.wait()

    @contextlib.contextmanager
    def _hurrying(self) -> Iterator[None]:
        """Let no trials be gathered while somebody waits for them to be acknowledged."""
        self._awaited += 1
        self._hurry.set()
        try:
            yield
        finally:
            self._awaited -= 1
            if not self._awaited:
                self._hurry.clear()

    async def _send(self, batch: Batch) -> list[str]:
        """Send one batch; returns the trials that need not be kept any longer."""
        readable, done = _parse(batch.trials)
        if not readable:
            return done
        try:
            response = await self._coordinator.report_trials(
                batch.lease_id, batch.fencing_token, readable
            )
        except TuneFleetError as e:
            if e.reason in FATAL:
                raise
            if len(readable) == 1:
                _log.error("trial refused", trial=readable[0].trial_id, why=e.message)
                return [*done, readable[0].trial_id]
            # One trial is at fault; the others shall not suffer for it.
            for stored in batch.trials:
                done += await self._send(Batch(batch.lease_id, batch.fencing_token, (stored,)))
            return done
        for rejected in response.rejected:
            _log.warning("trial rejected", trial=rejected.trial_id, why=rejected.reason)
        sent = {trial.trial_id for trial in readable}
        named = [*response.stored_trial_ids, *(r.trial_id for r in response.rejected)]
        return done + [trial_id for trial_id in named if trial_id in sent]


def _parse(stored: Sequence[StoredTrial]) -> tuple[list[trial_pb2.Trial], list[str]]:
    """Read messages; returns them and the ids of those that are damaged."""
    readable: list[trial_pb2.Trial] = []
    damaged: list[str] = []
    for each in stored:
        try:
            readable.append(trial_pb2.Trial.FromString(each.payload))
        except DecodeError as e:
            _log.error("trial in the outbox is damaged", trial=each.trial_id, error=str(e))
            damaged.append(each.trial_id)
    return readable, damaged
