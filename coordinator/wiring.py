"""Gives the server its work: plans leases, drives campaigns, trains the cost model."""

from __future__ import annotations

from coordinator.campaigns.benching import Bencher
from coordinator.campaigns.finishing import Finisher
from coordinator.campaigns.importing import Importer
from coordinator.campaigns.planner import LeasePlanner
from coordinator.campaigns.replaying import Replayer
from coordinator.campaigns.runner import CampaignRunner
from coordinator.costmodel.registry import ModelRegistry
from coordinator.costmodel.supervisor import TrainingSupervisor
from coordinator.dataset.importing import DatasetImporter
from coordinator.server.app import Wiring
from coordinator.server.core import Core


def wire(core: Core) -> Wiring:
    """Make a coordinator that does everything a coordinator does."""
    if core.base_model is not None:
        ModelRegistry(core.store, core.blobs, core.home, core.clock).add_base(core.base_model)
    runner = CampaignRunner(
        core.store,
        core.bus,
        Importer(core.store, core.blobs, core.home, core.bus),
        Finisher(core.store, core.blobs, core.home, core.bus, core.clock),
        datasets=DatasetImporter(
            core.store,
            core.blobs,
            core.home,
            core.bus,
            database_url=core.database_url,
            clock=core.clock,
        ),
        replayer=Replayer(core.store, core.blobs, core.bus, core.clock),
        bencher=Bencher(core.store, core.blobs, core.home, core.bus, core.clock),
        disk=core.disk,
        clock=core.clock,
    )
    trainer = TrainingSupervisor(core.store, core.blobs, core.home, clock=core.clock)
    planner = LeasePlanner(core.store, core.bus, core.clock)
    return Wiring(planner, background=(runner.run, trainer.run))
