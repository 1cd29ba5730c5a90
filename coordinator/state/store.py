"""The contract of the coordinator's memory."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

from coordinator.state.contract.campaigns import CampaignStore
from coordinator.state.contract.datasets import DatasetStore
from coordinator.state.contract.devices import DeviceStore
from coordinator.state.contract.identities import IdentityStore
from coordinator.state.contract.leases import LeaseStore
from coordinator.state.contract.models import ModelStore
from coordinator.state.contract.references import ReferenceStore
from coordinator.state.contract.replays import ReplayStore
from coordinator.state.contract.switches import SwitchStore
from coordinator.state.contract.trials import IngestOutcome, PreparedReport, TrialStore

__all__ = ["IngestOutcome", "PreparedReport", "Store"]


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

    * Every method is atomic: it happens wholly or not at all, and when it returns, it is durable,
      unless it is called within :meth:`group`.
    * Every method may be called from any thread. No method keeps a lock after it returned.
    * Records given and returned are values; the store keeps no reference to them.
    * Time is always an argument, in seconds since 1970 by the coordinator's clock.
    * A name that is not known raises TuneFleetError with the reason of the catalogue
      (``CAMPAIGN_UNKNOWN``, ``DEVICE_UNKNOWN``, ``LEASE_LOST``, ``MODEL_VERSION_UNKNOWN``).
    """

    @abstractmethod
    def group(self) -> AbstractContextManager[None]:
        """Make what this thread does within the context durable together, at its end.

        Waiting for the disk takes longer than most of what is written. Every method is still
        atomic, and sees what was done before it; nobody else does until the end, so nothing may
        be acknowledged before. A TuneFleetError of a method leaves the others as they are; any
        other exception undoes all of the group and is raised at its end, if not before.
        Others that write wait meanwhile: it should be over in milliseconds.
        """

    @abstractmethod
    def close(self) -> None:
        """Release files and connections. Nothing may be called afterwards."""
