"""Devices, and the history of what their reference kernels took."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from coordinator.state.records import DeviceRecord, Quarantine, TaskKey


class DeviceStore(ABC):
    """What the store does with devices, by the rules of the whole contract."""

    @abstractmethod
    def put_device(self, device: DeviceRecord) -> None:
        """Add a device or replace what is known of it.

        Its count of trials, its quarantine and whether it is drained are kept. A device that is not
        ready, but was on the same hardware, also keeps its profile and target of then: an agent
        announces itself before it has measured anything, and that may arrive late.

        Raises:
            TuneFleetError: INVALID_ARGUMENT if another device has the same name.
        """

    @abstractmethod
    def touch_device(self, device_id: str, now: float) -> None:
        """Note that a device was heard of. Raises AGENT_UNKNOWN."""

    @abstractmethod
    def touch_devices(self, device_ids: Collection[str], now: float) -> dict[str, str]:
        """Note that devices were heard of.

        Returns:
            The id of the lease that each holds, empty for none; those that are not known are
            missing.
        """

    @abstractmethod
    def get_device(self, name_or_id: str) -> DeviceRecord:
        """Return one device by id or by name. Raises DEVICE_UNKNOWN."""

    @abstractmethod
    def list_devices(self, fingerprint: str = "") -> list[DeviceRecord]:
        """Return all devices, or those of one hardware, by name."""

    @abstractmethod
    def heard_of(self, since: float, until: float) -> frozenset[str]:
        """Return the ids of devices that were heard of last within these times, both included."""

    @abstractmethod
    def set_quarantine(self, device_id: str, quarantine: Quarantine | None) -> None:
        """Keep work from a device, or let it have work again. Raises DEVICE_UNKNOWN."""

    @abstractmethod
    def set_draining(self, device_id: str, *, draining: bool) -> None:
        """Give a device no more work, or give it work again. Raises DEVICE_UNKNOWN."""

    @abstractmethod
    def note_canary(self, lease_id: str, now: float) -> bool:
        """Add to a device's history what its reference kernel took during a round.

        That is the median over the round's trials that are OK or THROTTLED: what a neighbour or
        chance disturbed says nothing of the device. A round without such a reading, or whose
        reading was noted before, adds nothing.

        Returns:
            Whether a reading was added.
        """

    @abstractmethod
    def canary_readings(self, device_id: str, key: TaskKey, limit: int) -> list[float]:
        """Return a device's last readings for a task's target and hardware, oldest first."""

    @abstractmethod
    def forget_canary(self, device_id: str) -> None:
        """Forget a device's history of readings."""
