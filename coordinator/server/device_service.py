"""What users ask of devices."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import structlog

from coordinator.server.agents.vitals import LatestVitals
from coordinator.server.bus import Bus
from coordinator.server.messages import device_message
from coordinator.server.selectors import select
from coordinator.state.records import LeaseState
from coordinator.state.store import Store
from tunefleet.v1 import device_pb2, user_service_pb2_grpc
from tunefleet.v1 import user_service_pb2 as pb

log = structlog.get_logger()

_Context = grpc.aio.ServicerContext[Any, Any]


class DeviceService(user_service_pb2_grpc.DeviceServiceServicer):
    """Shows devices, ends their quarantine, drains them."""

    def __init__(
        self,
        store: Store,
        bus: Bus,
        vitals: LatestVitals,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._bus = bus
        self._vitals = vitals
        self._clock = clock

    async def ListDevices(
        self, request: pb.ListDevicesRequest, context: _Context
    ) -> pb.ListDevicesResponse:
        """Return the devices that match a selector, by name."""
        known = await asyncio.to_thread(self._store.list_devices)
        now = self._clock()
        # For a selector no imported device is there: it could not be sent the work.
        looked_at = (
            [replace(device, imported=False) for device in known if device.imported]
            if request.imported
            else known
        )
        wanted = {device.device_id for device in select(request.selector, looked_at)}
        busy = await asyncio.to_thread(self._busy) if any(d.draining for d in known) else ()
        chosen = [
            device_message(d, now, self._vitals.of(d.device_id), working=d.device_id in busy)
            for d in known
            if d.device_id in wanted
        ]
        return pb.ListDevicesResponse(devices=chosen)

    async def GetDevice(
        self, request: pb.GetDeviceRequest, context: _Context
    ) -> pb.GetDeviceResponse:
        """Return one device, by id or by name."""
        device = await asyncio.to_thread(self._store.get_device, request.device)
        return pb.GetDeviceResponse(device=await self._message(device.device_id))

    async def ReleaseDevice(
        self, request: pb.ReleaseDeviceRequest, context: _Context
    ) -> pb.ReleaseDeviceResponse:
        """Let a device have work again at once."""
        device = await asyncio.to_thread(self._store.get_device, request.device)
        await asyncio.to_thread(self._store.set_quarantine, device.device_id, None)
        if request.forget_history:
            await asyncio.to_thread(self._store.forget_canary, device.device_id)
        self._bus.notify_work()
        return pb.ReleaseDeviceResponse(device=await self._message(device.device_id))

    async def DrainDevice(
        self, request: pb.DrainDeviceRequest, context: _Context
    ) -> pb.DrainDeviceResponse:
        """Give a device no more work; what it has it may finish."""
        return pb.DrainDeviceResponse(device=await self._set_draining(request.device, on=True))

    async def UndrainDevice(
        self, request: pb.UndrainDeviceRequest, context: _Context
    ) -> pb.UndrainDeviceResponse:
        """Give a device work again."""
        message = await self._set_draining(request.device, on=False)
        self._bus.notify_work()
        return pb.UndrainDeviceResponse(device=message)

    async def _set_draining(self, reference: str, *, on: bool) -> device_pb2.Device:
        device = await asyncio.to_thread(self._store.get_device, reference)
        await asyncio.to_thread(self._store.set_draining, device.device_id, draining=on)
        log.info("device drains" if on else "device drains no more", device=device.name)
        return await self._message(device.device_id)

    async def _message(self, device_id: str) -> device_pb2.Device:
        device = await asyncio.to_thread(self._store.get_device, device_id)
        busy = await asyncio.to_thread(self._busy) if device.draining else frozenset()
        vitals = self._vitals.of(device_id)
        return device_message(device, self._clock(), vitals, working=device_id in busy)

    def _busy(self) -> frozenset[str]:
        """Return the ids of the devices that have work."""
        return frozenset(a.device_id for a in self._store.list_leases(states=[LeaseState.ACTIVE]))
