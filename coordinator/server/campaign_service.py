"""What users ask of campaigns."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import grpc
import structlog

from coordinator.server.bus import Bus
from coordinator.server.campaign_creation import create_campaign
from coordinator.server.disk import DiskGuard
from coordinator.server.draining import Drain
from coordinator.server.messages import CampaignView, campaign_message
from coordinator.state.blobs import BlobStore
from coordinator.state.records import CampaignPurpose, CampaignRecord, CampaignState
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import campaign_pb2, user_service_pb2_grpc
from tunefleet.v1 import user_service_pb2 as pb

log = structlog.get_logger()

_Context = grpc.aio.ServicerContext[Any, Any]


class CampaignService(user_service_pb2_grpc.CampaignServiceServicer):
    """Creates campaigns, shows them and changes their state. Others drive them."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        bus: Bus,
        *,
        disk: DiskGuard,
        drain: Drain,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._bus = bus
        self._disk = disk
        self._drain = drain
        self._clock = clock

    async def CreateCampaign(
        self, request: pb.CreateCampaignRequest, context: _Context
    ) -> pb.CreateCampaignResponse:
        """Start a campaign."""
        await asyncio.to_thread(self._disk.require_room)
        campaign = await asyncio.to_thread(
            create_campaign,
            self._store,
            self._blobs,
            request.spec,
            request.idempotency_key,
            self._clock(),
        )
        log.info("campaign created", campaign=campaign.campaign_id, model=campaign.spec.name)
        self._bus.notify_campaign(campaign.campaign_id)
        return pb.CreateCampaignResponse(campaign=await self._message(campaign))

    async def GetCampaign(
        self, request: pb.GetCampaignRequest, context: _Context
    ) -> pb.GetCampaignResponse:
        """Return a campaign with its tasks."""
        campaign = await self._find(request.campaign_id)
        return pb.GetCampaignResponse(campaign=await self._message(campaign))

    async def ListCampaigns(
        self, request: pb.ListCampaignsRequest, context: _Context
    ) -> pb.ListCampaignsResponse:
        """Return all campaigns without their tasks."""
        messages = await asyncio.to_thread(self._read_all)
        return pb.ListCampaignsResponse(campaigns=messages)

    async def WatchCampaign(
        self, request: pb.WatchCampaignRequest, context: _Context
    ) -> AsyncIterator[pb.WatchCampaignResponse]:
        """Stream a campaign until it has ended."""
        campaign = await self._find(request.campaign_id)
        async with aclosing(self._bus.watch_campaign(campaign.campaign_id)) as changes:
            async for _ in changes:
                campaign = await self._find(campaign.campaign_id)
                # A collection has thousands of tasks, which nobody follows one by one.
                with_tasks = campaign.spec.purpose is CampaignPurpose.TUNE
                message = await self._message(campaign, with_tasks=with_tasks)
                yield pb.WatchCampaignResponse(campaign=message)
                if campaign.state.ended:
                    return
        raise TuneFleetError(Reason.COORDINATOR_UNREACHABLE, "the coordinator is stopping")

    async def PauseCampaign(
        self, request: pb.PauseCampaignRequest, context: _Context
    ) -> pb.PauseCampaignResponse:
        """Lease no more rounds; those in progress end as usual."""
        campaign = await self._change(
            request.campaign_id, [CampaignState.TUNING], state=CampaignState.PAUSED
        )
        return pb.PauseCampaignResponse(campaign=await self._message(campaign))

    async def ResumeCampaign(
        self, request: pb.ResumeCampaignRequest, context: _Context
    ) -> pb.ResumeCampaignResponse:
        """Lease rounds again."""
        campaign = await self._change(
            request.campaign_id, [CampaignState.PAUSED], state=CampaignState.TUNING
        )
        self._bus.notify_work()
        return pb.ResumeCampaignResponse(campaign=await self._message(campaign))

    async def CancelCampaign(
        self, request: pb.CancelCampaignRequest, context: _Context
    ) -> pb.CancelCampaignResponse:
        """End a campaign and its leases; what was measured stays."""
        campaign = await self._change(
            request.campaign_id,
            [state for state in CampaignState if not state.ended],
            state=CampaignState.CANCELLED,
            ended_at_unix_s=self._clock(),
            activity="",
        )
        ended = await asyncio.to_thread(self._store.cancel_leases, campaign.campaign_id)
        for lease in ended:
            self._bus.notify_leases(lease.device_id)
        return pb.CancelCampaignResponse(campaign=await self._message(campaign))

    async def _change(
        self, reference: str, expected: Sequence[CampaignState], **changes: Any
    ) -> CampaignRecord:
        campaign = await self._find(reference)
        if campaign.state is changes["state"]:  # the call was repeated
            return campaign
        changed = await asyncio.to_thread(
            self._store.update_campaign, campaign.campaign_id, expected, **changes
        )
        log.info("campaign changed", campaign=changed.campaign_id, state=changed.state)
        self._bus.notify_campaign(changed.campaign_id)
        return changed

    async def _find(self, reference: str) -> CampaignRecord:
        return await asyncio.to_thread(self._store.get_campaign, reference)

    async def _message(
        self, campaign: CampaignRecord, *, with_tasks: bool = True
    ) -> campaign_pb2.Campaign:
        return await asyncio.to_thread(self._read, campaign, with_tasks)

    def _read(self, campaign: CampaignRecord, with_tasks: bool) -> campaign_pb2.Campaign:
        current = self._store.current_model()
        view = CampaignView(
            campaign=campaign,
            progress=self._store.task_progress(campaign.campaign_id),
            devices=self._store.list_devices(),
            model_version=current.version if current else "",
            now=self._clock(),
            drained=self._drain.on,
        )
        return campaign_message(view, with_tasks=with_tasks)

    def _read_all(self) -> list[campaign_pb2.Campaign]:
        current = self._store.current_model()
        devices = self._store.list_devices()
        return [
            campaign_message(
                CampaignView(
                    campaign=campaign,
                    progress=self._store.task_progress(campaign.campaign_id),
                    devices=devices,
                    model_version=current.version if current else "",
                    now=self._clock(),
                    drained=self._drain.on,
                ),
                with_tasks=False,
            )
            for campaign in self._store.list_campaigns()
        ]
