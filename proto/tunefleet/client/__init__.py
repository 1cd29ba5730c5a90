"""The Python client, for notebooks and scripts.

>>> from tunefleet.client import TuneFleet
>>> with TuneFleet("127.0.0.1:7460") as fleet:
...     campaign = fleet.tune("model.onnx", trials=500, devices="arch=x86_64")
...     campaign.wait(progress=print)
...     campaign.download("out")

Calls block, have deadlines, and raise :class:`tunefleet.errors.TuneFleetError`.
"""

from tunefleet.client.campaign import Campaign
from tunefleet.client.datasets import (
    DatasetDevice,
    DatasetGroup,
    DatasetStats,
    ExportedDataset,
)
from tunefleet.client.fleet import DEFAULT_ADDRESS, TuneFleet
from tunefleet.client.models import ExportedModel
from tunefleet.client.values import (
    Artifact,
    CampaignPurpose,
    CampaignState,
    CampaignStatus,
    Coordinator,
    Device,
    DeviceState,
    Failure,
    ModelVersion,
    Quarantine,
    TargetStatus,
    TaskStatus,
)
from tunefleet.errors import Reason, TuneFleetError

__all__ = [
    "DEFAULT_ADDRESS",
    "Artifact",
    "Campaign",
    "CampaignPurpose",
    "CampaignState",
    "CampaignStatus",
    "Coordinator",
    "DatasetDevice",
    "DatasetGroup",
    "DatasetStats",
    "Device",
    "DeviceState",
    "ExportedDataset",
    "ExportedModel",
    "Failure",
    "ModelVersion",
    "Quarantine",
    "Reason",
    "TargetStatus",
    "TaskStatus",
    "TuneFleet",
    "TuneFleetError",
]
