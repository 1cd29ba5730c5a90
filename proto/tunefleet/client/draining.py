"""The coordinator itself, and keeping work from it or from a device."""

from __future__ import annotations

from tunefleet.client.connection import Connection
from tunefleet.client.messages import coordinator_from_proto, device_from_proto
from tunefleet.client.values import Coordinator, Device
from tunefleet.errors import Reason
from tunefleet.v1 import user_service_pb2 as pb
from tunefleet.v1 import user_service_pb2_grpc


class DrainCalls:
    """The part of a connection to a coordinator that takes it, or devices, out of work."""

    _connection: Connection

    def coordinator(self) -> Coordinator:
        """Return what the coordinator is and does now."""
        response = self._connection.call(
            self._coordinator_service().GetCoordinator, pb.GetCoordinatorRequest()
        )
        return coordinator_from_proto(response.coordinator)

    def drain(self) -> Coordinator:
        """Have no more work given out, restarts included; what is under way goes on."""
        response = self._connection.call(
            self._coordinator_service().DrainCoordinator, pb.DrainCoordinatorRequest()
        )
        return coordinator_from_proto(response.coordinator)

    def resume(self) -> Coordinator:
        """Have work given out again."""
        response = self._connection.call(
            self._coordinator_service().ResumeCoordinator, pb.ResumeCoordinatorRequest()
        )
        return coordinator_from_proto(response.coordinator)

    def drain_device(self, name: str) -> Device:
        """Give a device, by its name or id, no more work; the round it has it may finish.

        Raises:
            TuneFleetError: DEVICE_UNKNOWN.
        """
        response = self._connection.call(
            self._device_service().DrainDevice,
            pb.DrainDeviceRequest(device=name),
            not_found=Reason.DEVICE_UNKNOWN,
        )
        return device_from_proto(response.device)

    def undrain_device(self, name: str) -> Device:
        """Give a device, by its name or id, work again.

        Raises:
            TuneFleetError: DEVICE_UNKNOWN.
        """
        response = self._connection.call(
            self._device_service().UndrainDevice,
            pb.UndrainDeviceRequest(device=name),
            not_found=Reason.DEVICE_UNKNOWN,
        )
        return device_from_proto(response.device)

    def _coordinator_service(self) -> user_service_pb2_grpc.CoordinatorServiceStub:
        return user_service_pb2_grpc.CoordinatorServiceStub(self._connection.channel)

    def _device_service(self) -> user_service_pb2_grpc.DeviceServiceStub:
        return user_service_pb2_grpc.DeviceServiceStub(self._connection.channel)
