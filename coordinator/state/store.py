"""The contract of the coordinator's memory."""

from __future__ import annotations

from abc import abstractmethod

from coordinator.state.contract.campaigns import CampaignStore
from coordinator.state.contract.datasets import DatasetStore
from coordinator.state.contract.devices import DeviceStore
from coordinator.state.contract.identities import IdentityStore
from coordinator.state.contract.leases import LeaseStore
from coordinator.state.contract.models import ModelStore
from coordinator.state.contract.references import ReferenceStore
from coordinator.state.contract.replays import ReplayStore
from coordinator.state.contract.switches import SwitchStore
from coordinator.state.contract.trials import IngestOutcome, TrialStore

__all__ = ["IngestOutcome", "Store"]


class Store(
    DeviceStore,
    CampaignStore,
    LeaseStore,
    TrialStore,
    DatasetStore,
    ReplayStore,
    ModelStore,
    SwitchStore,
    IdentityStore,
    ReferenceStore,
):
    """Everything the coordinator must not forget.

    What it does with each kind of thing is said in :mod:`coordinator.state.contract`. Of all of it:

    * Every method is atomic: it happens wholly or not at all, and when it returns, it is durable.
    * Every method may be called from any thread. No method keeps a lock after it returned.
    * Records given and returned are values; the store keeps no reference to them.
    * Time is always an argument, in seconds since 1970 by the coordinator's clock.
    * A name that is not known raises TuneFleetError with the reason of the catalogue
      (``CAMPAIGN_UNKNOWN``, ``DEVICE_UNKNOWN``, ``LEASE_LOST``, ``MODEL_VERSION_UNKNOWN``).
    """

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. Nothing may be called afterwards."""
