"""Checks what a person asks to have timed again, and makes a campaign of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coordinator.server.messages import is_online
from coordinator.server.selectors import select
from coordinator.state.records import (
    BenchSource,
    CampaignPurpose,
    CampaignRecord,
    CampaignSpec,
    CampaignState,
    DeviceRecord,
    GroupRecord,
)
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.v1 import campaign_pb2


def read_bench(message: campaign_pb2.CampaignSpec) -> dict[str, Any]:
    """Read what only a benchmark has. Raises INVALID_ARGUMENT."""
    options = message.bench
    if not options.campaign_id:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT, "a benchmark needs a campaign whose modules it times"
        )
    source = BenchSource(options.campaign_id, options.per_op)
    return {"purpose": CampaignPurpose.BENCH, "bench": source}


def bench_campaign(
    campaign_id: str, spec: CampaignSpec, source: BenchSource, store: Store, now: float
) -> CampaignRecord:
    """Make a campaign that times what another one compiled, where a device for it is there.

    Raises:
        TuneFleetError: CAMPAIGN_UNKNOWN; CAMPAIGN_STATE, it compiled nothing (yet);
            NO_DEVICE_MATCHES, none that could run it is connected.
    """
    tuned = store.get_campaign(source.campaign_id)
    if tuned.spec.bench is not None:
        tuned = store.get_campaign(tuned.spec.bench.campaign_id)
    compiled = _compiled(tuned)
    groups = _groups_at_hand(tuned, compiled, spec.device_selector, store.list_devices(), now)
    return CampaignRecord(
        campaign_id=campaign_id,
        spec=replace(
            spec,
            bench=replace(source, campaign_id=tuned.campaign_id),
            model_filename=tuned.spec.model_filename,
            # A device of the same hardware will do, whatever it tunes for by itself.
            targets=tuple(dict.fromkeys(group.target for group in groups)),
        ),
        state=CampaignState.FINISHING,
        created_at_unix_s=now,
        activity="waiting for the device",
        groups=groups,
        onnx_digest=tuned.onnx_digest,
        inputs_digest=tuned.inputs_digest,
        outputs_digest=tuned.outputs_digest,
        tvm_version=tuned.tvm_version,
    )


def _compiled(campaign: CampaignRecord) -> list[GroupRecord]:
    """Return the groups of an ended campaign that have modules, as they were before any timing."""
    name = campaign.campaign_id
    if campaign.spec.purpose is not CampaignPurpose.TUNE:
        raise TuneFleetError(
            Reason.CAMPAIGN_STATE,
            f"campaign {name} compiled nothing: its purpose is to {campaign.spec.purpose}",
            hint="Name a campaign that `tunefleet tune` started.",
        )
    if not campaign.state.ended:
        raise TuneFleetError(
            Reason.CAMPAIGN_STATE,
            f"campaign {name} is {campaign.state}; its modules can be timed when it is done",
            hint=f"Wait for it with `tunefleet campaigns watch {name}`.",
        )
    found = [
        GroupRecord(
            g.target, g.fingerprint, g.prepared_digest, g.untuned_digest, compiled=g.compiled
        )
        for g in campaign.groups
        if g.compiled
    ]
    if not found:
        raise TuneFleetError(
            Reason.CAMPAIGN_STATE,
            f"campaign {name} is {campaign.state} and compiled nothing",
            hint="Tune the model again: what was measured is known and need not be measured anew.",
        )
    return found


def _groups_at_hand(
    campaign: CampaignRecord,
    groups: Sequence[GroupRecord],
    selector: str,
    devices: Sequence[DeviceRecord],
    now: float,
) -> tuple[GroupRecord, ...]:
    able = [
        device
        for device in select(selector, devices)
        if is_online(device, now) and device.ready and not device.is_quarantined(now)
    ]
    at_hand = {device.fingerprint for device in able}
    found = tuple(group for group in groups if group.fingerprint in at_hand)
    if found:
        return found
    hardware = {group.fingerprint for group in groups}
    would_do = [d for d in devices if d.fingerprint in hardware and not d.imported]
    told = ", ".join(f"{d.name} ({_why_not(d, now)})" for d in would_do)
    chosen = " chosen" if selector else ""
    raise TuneFleetError(
        Reason.NO_DEVICE_MATCHES,
        f"no{chosen} device that can run the modules of {campaign.campaign_id} is connected; "
        + (f"of the same hardware are {told}" if told else "no device of its hardware is known"),
        hint="Start `tunefleet-agent run` on such a device; see `tunefleet devices list`.",
    )


def _why_not(device: DeviceRecord, now: float) -> str:
    if not is_online(device, now):
        return "offline"
    if device.is_quarantined(now):
        return "in quarantine"
    return "connected, but not chosen" if device.ready else "measuring itself"
