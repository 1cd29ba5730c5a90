"""Reads what an agent says of itself when it registers."""

from __future__ import annotations

import re
from dataclasses import replace

from coordinator.server.limits import MAX_NAME_CHARS
from coordinator.state.records import DeviceRecord
from coordinator.state.store import Store
from tunefleet import __version__
from tunefleet.conversions import profile_from_proto
from tunefleet.devices import DeviceProfile
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.targets import canonical_target, derive_target
from tunefleet.v1 import agent_service_pb2

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")


def device_from_request(
    request: agent_service_pb2.RegisterAgentRequest, now: float
) -> DeviceRecord:
    """Check a registration and make a device of it.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, or INCOMPATIBLE if the agent extracts other features.
    """
    if request.feature_schema != schema_digest():
        raise TuneFleetError(
            Reason.INCOMPATIBLE,
            f"agent {request.agent_version or '(no version)'} extracts features by schema "
            f"{request.feature_schema or '(none)'}, coordinator {__version__} by {schema_digest()}",
        )
    if not _ID.fullmatch(request.device_id):
        raise _invalid(f"the device id {request.device_id[:80]!r} should be letters and digits")
    name = request.name.strip() or request.device_id
    if len(name) > MAX_NAME_CHARS or not name.isprintable() or "," in name:
        raise _invalid(f"the name {name[:80]!r} should be short, printable and without commas")
    for key, value in request.labels.items():
        if not _LABEL_KEY.fullmatch(key) or len(value) > MAX_NAME_CHARS or "," in value:
            raise _invalid(f"the label {key[:80]!r} cannot be used in selectors")
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
    )


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
