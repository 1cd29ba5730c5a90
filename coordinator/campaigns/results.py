"""The end of campaigns whose result is one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from coordinator.state.blobs import BlobStore
from coordinator.state.records import ArtifactRecord, CampaignState
from coordinator.state.store import Store
from tunefleet.errors import TuneFleetError


def end_with_result(
    store: Store,
    blobs: BlobStore,
    campaign_id: str,
    file: str,
    result: Mapping[str, Any],
    *,
    now: float,
) -> None:
    """Keep a result as JSON and end the campaign, unless it was cancelled meanwhile.

    Args:
        store: knows the campaign, which is finishing.
        blobs: takes the result.
        campaign_id: its exact id.
        file: the artifact's name.
        result: what was found.
        now: Unix time in seconds.
    """
    text = json.dumps(result, indent=2).encode()
    artifact = ArtifactRecord(file, blobs.put(text), len(text))
    with suppress(TuneFleetError):
        store.update_campaign(
            campaign_id,
            [CampaignState.FINISHING],
            state=CampaignState.DONE,
            ended_at_unix_s=now,
            artifacts=(artifact,),
            activity="",
        )
