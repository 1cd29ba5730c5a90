"""What users ask of devices."""

# ruff: noqa: ARG002, N802 - the methods' names and arguments are the contract's

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from coordinator.server.bus import Bus
from coordinator.server.messages import device_message
from coordinator.server.selectors import select
from coordinator.state.store import Store
from tunefleet.v1 import user_service_pb2 as pb
from tunefleet.v1 import user_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]


class DeviceService(user_service_pb2_grpc.DeviceServiceServicer):
    """Shows devices."""

    def __init__(self, store: Store, bus: Bus, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._bus = bus
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
        chosen = [device_message(d, now) for d in known if d.device_id in wanted]
        return pb.ListDevicesResponse(devices=chosen)

    async def GetDevice(
        self, request: pb.GetDeviceRequest, context: _Context
    ) -> pb.GetDeviceResponse:
        """Return one device, by id or by name."""
        device = await asyncio.to_thread(self._store.get_device, request.device)
        return pb.GetDeviceResponse(device=device_message(device, self._clock()))

    async def ReleaseDevice(
        self, request: pb.ReleaseDeviceRequest, context: _Context
    ) -> pb.ReleaseDeviceResponse:
        """Let a device have work again at once."""
        device = await asyncio.to_thread(self._store.get_device, request.device)
        await asyncio.to_thread(self._store.set_quarantine, device.device_id, None)
        if request.forget_history:
            await asyncio.to_thread(self._store.forget_canary, device.device_id)
        self._bus.notify_work()
        device = await asyncio.to_thread(self._store.get_device, device.device_id)
        return pb.ReleaseDeviceResponse(device=device_message(device, self._clock()))
