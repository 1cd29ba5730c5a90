"""Leases: taken one after the other, kept while the work goes on, given back or completed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from agent.session.coordinator import Coordinator, Grant, WorkResult
from agent.session.delivery import Delivery
from agent.session.pace import Backoff, Pace
from agent.session.rpc import FATAL
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.leases import Lease
from tunefleet.v1 import lease_pb2

_RENEWALS_A_TERM = 3
"""Two renewals may fail before a lease ends."""
_SHORTEST_WAIT_S = 0.2
"""Between two questions for work, whatever the coordinator says."""
_LONGEST_WAIT_S = 300.0

_log = structlog.get_logger(__name__)


class Worker(Protocol):
    """Whatever does the work of a lease."""

    async def run(self, lease: Lease) -> WorkResult:
        """Do it. When cancelled, end everything that was started for it."""

    def expect(self) -> None:
        """Get ready for work that is about to come. Returns at once."""


class _LeaseLost(Exception):  # noqa: N818 (an event, not a mistake)
    """The lease ended before its work."""


@dataclass
class _Held:
    lease: Lease
    dropped: asyncio.Event = field(default_factory=asyncio.Event)
    result: WorkResult | None = None


class Leasing:
    """Asks for work and sees it through, one lease at a time."""

    def __init__(
        self, coordinator: Coordinator, delivery: Delivery, worker: Worker, pace: Pace
    ) -> None:
        self._coordinator = coordinator
        self._delivery = delivery
        self._worker = worker
        self._pace = pace
        self._hint = asyncio.Event()
        self._held: _Held | None = None
        self._stopping = False

    def stop(self) -> None:
        """Take no more leases; to end the one in progress, cancel :meth:`run` too."""
        self._stopping = True

    def look_for_work(self) -> None:
        """Ask for work soon, whatever the coordinator said when asked last."""
        self._hint.set()

    def held_leases(self) -> Sequence[str]:
        """Return the id of the lease held, if any."""
        return [] if self._held is None else [self._held.lease.lease_id]

    def drop_leases(self, lease_ids: Sequence[str]) -> None:
        """End the work under these leases; what was measured is sent all the same."""
        if self._held is not None and self._held.lease.lease_id in lease_ids:
            self._held.dropped.set()

    async def run(self) -> None:
        """Take and carry out leases until stopped. A TuneFleetError is one that no retry cures.

        When cancelled, the work in progress has ended but its lease is still held: see
        :meth:`give_back`.
        """
        backoff = Backoff(self._pace)
        while not self._stopping:
            await self._delivery.room()
            self._hint.clear()
            try:
                grant = await self._coordinator.acquire_lease()
                if grant.refused is not None:
                    await self._refuse(grant.refused, grant)
                elif grant.lease is None:
                    if grant.work_expected:
                        self._worker.expect()
                    await self._wait_for_hint(grant.retry_after_s)
                    continue
                elif await self._hold(grant.lease):
                    backoff.reset()
                    continue
            except TuneFleetError as e:
                if e.reason in FATAL:
                    raise
                _log.warning("work refused", why=e.message)
            # A full disk, say, must not make leases be taken and failed in a tight loop.
            await backoff.wait()

    async def give_back(self, limit_s: float) -> None:
        """End the lease still held, after sending what was measured.

        Args:
            limit_s: seconds after which to leave it to the coordinator to notice.
        """
        held = self._held
        if held is None:
            return
        lease = held.lease
        result = held.result or WorkResult(lease_pb2.LEASE_OUTCOME_RETURNED)
        try:
            async with asyncio.timeout(limit_s):
                await self._complete(lease, result)
            _log.info("lease given back", lease=lease.lease_id)
        except TimeoutError:
            _log.warning("lease not given back: no answer in time", lease=lease.lease_id)
        except (TuneFleetError, _LeaseLost) as e:
            _log.warning("lease not given back", lease=lease.lease_id, why=str(e))
        self._held = None

    async def _hold(self, lease: Lease) -> bool:
        """Carry out one lease; returns whether more work may be taken at once."""
        held = self._held = _Held(lease)
        log = _log.bind(lease=lease.lease_id, campaign=lease.campaign_id)
        log.info("lease taken", work=type(lease.work).__name__)
        lost = False
        refusal: TuneFleetError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self._keep(held))
                held.result = await self._work(lease)
                await self._complete(lease, held.result)
                keeper.cancel()
        except* _LeaseLost as losses:
            lost = True
            log.warning("lease lost, work dropped", why=str(losses.exceptions[0]))
        except* TuneFleetError as errors:
            refusal = _first_error(errors)
        self._held = None
        if refusal is not None:
            raise refusal
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # A group that was failing when the cancellation came has swallowed it
            # (https://github.com/python/cpython/issues/116720).
            raise asyncio.CancelledError
        if lost or held.result is None:
            return False
        log.info(
            "lease ended",
            outcome=lease_pb2.LeaseOutcome.Name(held.result.outcome),
            error=held.result.error or None,
            phase_seconds={name: round(s, 2) for name, s in held.result.phase_seconds.items()},
        )
        return held.result.outcome != lease_pb2.LEASE_OUTCOME_RETURNED

    async def _work(self, lease: Lease) -> WorkResult:
        try:
            return await self._worker.run(lease)
        except (OSError, sqlite3.Error) as e:
            _log.exception("work given back")
            return WorkResult(lease_pb2.LEASE_OUTCOME_RETURNED, error=f"{type(e).__name__}: {e}")
        except TuneFleetError as e:
            if e.reason in FATAL:
                raise
            _log.warning("work failed", why=e.message)
            return WorkResult(lease_pb2.LEASE_OUTCOME_FAILED, error=e.message)
        except Exception as e:  # a bug must cost one lease, not the agent
            _log.exception("work failed")
            return WorkResult(lease_pb2.LEASE_OUTCOME_FAILED, error=f"{type(e).__name__}: {e}")

    async def _complete(self, lease: Lease, result: WorkResult) -> None:
        await self._delivery.flushed(lease.lease_id)
        try:
            await self._coordinator.complete_lease(lease.lease_id, lease.fencing_token, result)
        except TuneFleetError as e:
            if e.reason is Reason.LEASE_LOST:
                raise _LeaseLost(e.message) from e
            raise

    async def _keep(self, held: _Held) -> None:
        """Renew a lease for ever; raises _LeaseLost when it ended."""
        ttl_s = held.lease.ttl_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ttl_s / _RENEWALS_A_TERM):
                    await held.dropped.wait()
                raise _LeaseLost("cancelled by the coordinator")
            try:
                ttl_s = await self._coordinator.renew_lease(held.lease)
            except TuneFleetError as e:
                if e.reason is Reason.LEASE_LOST:
                    raise _LeaseLost(e.message) from e
                if e.reason in FATAL:
                    raise
                _log.warning("lease not renewed", lease=held.lease.lease_id, why=e.message)

    async def _refuse(self, message: lease_pb2.Lease, grant: Grant) -> None:
        _log.error("lease cannot be read", lease=message.lease_id, why=grant.refusal)
        result = WorkResult(lease_pb2.LEASE_OUTCOME_FAILED, error=grant.refusal)
        await self._coordinator.complete_lease(message.lease_id, message.fencing_token, result)

    async def _wait_for_hint(self, retry_after_s: float) -> None:
        wait_s = min(max(retry_after_s, _SHORTEST_WAIT_S), _LONGEST_WAIT_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.spread(wait_s)):
                await self._hint.wait()


def _first_error(group: BaseExceptionGroup[TuneFleetError]) -> TuneFleetError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, TuneFleetError)
    return error
