"""A campaign as an object: watch it, steer it, take its results."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from tunefleet.client import blobs
from tunefleet.client.connection import Connection
from tunefleet.client.messages import campaign_from_proto
from tunefleet.client.repeating import asked_wait_s
from tunefleet.client.tables import campaign_html
from tunefleet.client.values import CampaignState, CampaignStatus
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.failures import status_of
from tunefleet.v1 import user_service_pb2, user_service_pb2_grpc

WATCH_DEADLINE_S = 3600.0
"""A watch that lasts longer is opened anew, so that none stays behind for ever."""
RECONNECT_FIRST_S = 0.5
RECONNECT_LONGEST_S = 10.0
"""Waits between attempts to watch again double up to this, each times a random half to whole."""
GIVE_UP_AFTER_S = 900.0
"""A coordinator that is away for longer will hardly come back by itself."""

_CONNECTION_LOST = {"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED"}


class Campaign:
    """One campaign on a coordinator; :attr:`status` is what was last heard of it."""

    def __init__(self, connection: Connection, status: CampaignStatus) -> None:
        self._connection = connection
        self._stub = user_service_pb2_grpc.CampaignServiceStub(connection.channel)
        self.status = status

    @property
    def id(self) -> str:
        """Its unique name, made by the coordinator."""
        return self.status.campaign_id

    def refresh(self) -> CampaignStatus:
        """Ask for its status, tasks included."""
        request = user_service_pb2.GetCampaignRequest(campaign_id=self.id)
        response = self._connection.call(
            self._stub.GetCampaign, request, not_found=Reason.CAMPAIGN_UNKNOWN
        )
        return self._heard(campaign_from_proto(response.campaign))

    def watch(
        self,
        *,
        on_lost: Callable[[TuneFleetError], None] | None = None,
        give_up_after_s: float = GIVE_UP_AFTER_S,
    ) -> Iterator[CampaignStatus]:
        """Yield its status whenever it changed, until it has ended.

        A lost connection is opened again by itself.

        Args:
            on_lost: called each time an attempt failed, with why.
            give_up_after_s: how long to try in vain before raising.

        Raises:
            TuneFleetError: CAMPAIGN_UNKNOWN, or COORDINATOR_UNREACHABLE after all.
        """
        chance = random.Random()
        failures, heard_at = 0, time.monotonic()
        while not self.status.state.ended:
            request = user_service_pb2.WatchCampaignRequest(campaign_id=self.id)
            stream = self._stub.WatchCampaign(request, timeout=WATCH_DEADLINE_S)
            asked_s = 0.0
            try:
                for response in stream:
                    failures, heard_at = 0, time.monotonic()
                    yield self._heard(campaign_from_proto(response.campaign))
            except grpc.RpcError as e:
                if status_of(e)[0] == "DEADLINE_EXCEEDED":
                    continue
                error = self._connection.error(e, not_found=Reason.CAMPAIGN_UNKNOWN)
                asked_s = asked_wait_s(e)
                if not asked_s and status_of(e)[0] not in _CONNECTION_LOST:
                    raise error from e
                if time.monotonic() - heard_at > give_up_after_s:
                    raise error from e
                if on_lost is not None:
                    on_lost(error)
            finally:
                stream.cancel()  # type: ignore[no-untyped-call]
            if not self.status.state.ended:
                time.sleep(asked_s + _reconnect_wait_s(failures, chance))
                failures += 1

    def wait(
        self,
        *,
        progress: Callable[[CampaignStatus], object] | None = None,
        timeout_s: float | None = None,
    ) -> CampaignStatus:
        """Wait until it is done.

        Args:
            progress: called with every new status; ``print`` will do.
            timeout_s: longest time to wait, looked at whenever something has changed.

        Returns:
            Its final status.

        Raises:
            TuneFleetError: it failed (with its own reason), or was cancelled (CAMPAIGN_STATE).
            TimeoutError: it goes on after ``timeout_s``.
        """
        began = time.monotonic()
        for status in self.watch():
            if progress is not None:
                progress(status)
            waited_s = time.monotonic() - began
            if timeout_s is not None and waited_s > timeout_s and not status.state.ended:
                raise TimeoutError(f"the campaign {self.id} is not done after {waited_s:.0f} s")
        self.raise_if_unsuccessful()
        return self.status

    def raise_if_unsuccessful(self) -> None:
        """Raise if it is known to have failed or to have been cancelled.

        Raises:
            TuneFleetError: with the campaign's own reason, or CAMPAIGN_STATE.
        """
        if self.status.state is CampaignState.CANCELLED:
            raise TuneFleetError(
                Reason.CAMPAIGN_STATE,
                f"the campaign {self.id} was cancelled",
                hint="What it measured stays and speeds up the next campaign.",
            )
        if self.status.state is CampaignState.FAILED:
            failure = self.status.error
            named = failure is not None and failure.reason in Reason.__members__
            reason = Reason[failure.reason] if failure and named else Reason.CAMPAIGN_FAILED
            message = failure.message if failure else f"the campaign {self.id} failed"
            raise TuneFleetError(reason, message)

    def pause(self) -> CampaignStatus:
        """Stop leasing its rounds until it is resumed; rounds under way end as usual."""
        request = user_service_pb2.PauseCampaignRequest(campaign_id=self.id)
        response = self._connection.call(
            self._stub.PauseCampaign, request, not_found=Reason.CAMPAIGN_UNKNOWN
        )
        return self._heard(campaign_from_proto(response.campaign))

    def resume(self) -> CampaignStatus:
        """Lease its rounds again."""
        request = user_service_pb2.ResumeCampaignRequest(campaign_id=self.id)
        response = self._connection.call(
            self._stub.ResumeCampaign, request, not_found=Reason.CAMPAIGN_UNKNOWN
        )
        return self._heard(campaign_from_proto(response.campaign))

    def cancel(self) -> CampaignStatus:
        """End it; what was measured stays."""
        request = user_service_pb2.CancelCampaignRequest(campaign_id=self.id)
        response = self._connection.call(
            self._stub.CancelCampaign, request, not_found=Reason.CAMPAIGN_UNKNOWN
        )
        return self._heard(campaign_from_proto(response.campaign))

    def download(self, folder: str | Path, *, progress: blobs.Progress | None = None) -> list[Path]:
        """Fetch its results into a folder, checking every digest.

        Args:
            folder: made where it does not exist.
            progress: called with the bytes fetched and the bytes in all.

        Returns:
            Paths of the files.

        Raises:
            TuneFleetError: CAMPAIGN_STATE, it has no results (yet); BLOB_CORRUPT.
        """
        if not self.status.artifacts:
            self.refresh()
        if not self.status.artifacts:
            raise TuneFleetError(
                Reason.CAMPAIGN_STATE,
                f"the campaign {self.id} is {self.status.state} and has no results",
            )
        return blobs.download(self._connection, self.status.artifacts, Path(folder), progress)

    def _heard(self, status: CampaignStatus) -> CampaignStatus:
        self.status = status
        return status

    def __repr__(self) -> str:
        return f"<Campaign {self.id}: {self.status}>"

    def _repr_html_(self) -> str:
        return campaign_html(self.status)


def _reconnect_wait_s(failures: int, chance: random.Random) -> float:
    longest = min(RECONNECT_LONGEST_S, RECONNECT_FIRST_S * 2.0 ** min(failures, 10))
    return longest * chance.uniform(0.5, 1.0)
