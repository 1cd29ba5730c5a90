"""Reads what an agent says of itself when it registers."""

from __future__ import annotations

import re
from dataclasses import replace

from coordinator.server.compatibility import CAPABILITIES, AgentRelease, agree
from coordinator.server.limits import MAX_NAME_CHARS
from coordinator.state.records import DeviceRecord
from coordinator.state.store import Store
from tunefleet.conversions import profile_from_proto
from tunefleet.devices import TVM_DISTRIBUTION, DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.protocol import ProtocolRange
from tunefleet.targets import canonical_target, derive_target
from tunefleet.v1 import agent_service_pb2

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")
_MAX_LABELS = 64


def device_from_request(
    request: agent_service_pb2.RegisterAgentRequest, now: float
) -> DeviceRecord:
    """Check a registration and make a device of it.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, or INCOMPATIBLE if the agent's release does not fit.
    """
    protocol = agree(
        AgentRelease(
            request.agent_version,
            ProtocolRange.told(request.min_protocol, request.max_protocol),
            request.feature_schema,
            request.profile.versions.get(TVM_DISTRIBUTION, ""),
        )
    )
    if not _ID.fullmatch(request.device_id):
        raise _invalid(f"the device id {request.device_id[:80]!r} should be letters and digits")
    name = request.name.strip() or request.device_id
    if len(name) > MAX_NAME_CHARS or not name.isprintable() or "," in name:
        raise _invalid(f"the name {name[:80]!r} should be short, printable and without commas")
    if len(request.labels) > _MAX_LABELS:
        raise _invalid(f"a device may have {_MAX_LABELS} labels, not {len(request.labels)}")
    for key, value in request.labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _fits_in_selectors(value):
            raise _invalid(f"the label {key[:80]!r} cannot be used in selectors")
    if len(request.agent_version) > MAX_NAME_CHARS or not request.agent_version.isprintable():
        raise _invalid("the agent's version should be short and printable")
    try:
        profile = profile_from_proto(request.profile)
        target = _target(request.target, profile)
    except ValueError as e:
        raise _invalid(str(e)) from e
    return DeviceRecord(
        device_id=request.device_id,
        name=name,
        profile=profile,
        target=target,
        labels=dict(request.labels),
        agent_version=request.agent_version,
        last_seen_unix_s=now,
        protocol=protocol,
        feature_schema=request.feature_schema,
        capabilities=tuple(c for c in CAPABILITIES if c in request.capabilities),
    )


def _fits_in_selectors(value: str) -> bool:
    return len(value) <= MAX_NAME_CHARS and "," not in value and value.isprintable()


def put_under_free_name(store: Store, device: DeviceRecord) -> DeviceRecord:
    """Store a device; where another has its name, which is often the host's, add to it."""
    try:
        store.put_device(device)
    except TuneFleetError as e:
        if e.reason is not Reason.INVALID_ARGUMENT:
            raise
        holder = store.get_device(device.name)
        if holder.imported:
            # A device known from a file alone must not keep one that is there from its name.
            store.put_device(_with_id(holder))
        else:
            device = _with_id(device)
        store.put_device(device)
    return device


def _with_id(device: DeviceRecord) -> DeviceRecord:
    return replace(device, name=f"{device.name}-{device.device_id[-6:]}")


def _target(chosen: str, profile: DeviceProfile) -> str:
    return canonical_target(chosen) if chosen else derive_target(profile)


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)
