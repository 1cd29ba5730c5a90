"""Which other releases this one works with, and what it tells those it does not work with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import metadata

from coordinator.state.records import CampaignRecord, DeviceRecord, LeaseKind
from tunefleet import __version__, protocol
from tunefleet.devices import TVM_DISTRIBUTION
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.features import schema_digest
from tunefleet.protocol import ProtocolRange

CAPABILITIES = tuple(sorted(kind for kind in LeaseKind if kind is not LeaseKind.IMPORT))
"""Kinds of work that this release knows to lease."""


@cache
def tvm_version() -> str:
    """Return the release of apache-tvm that this coordinator's jobs work with, or nothing."""
    try:
        return metadata.version(TVM_DISTRIBUTION)
    except metadata.PackageNotFoundError:  # a coordinator that only keeps state
        return ""


@dataclass(frozen=True)
class AgentRelease:
    """What matters of an agent's release."""

    version: str
    protocols: ProtocolRange
    feature_schema: str
    tvm: str
    """Release of apache-tvm; empty where it was not installed as a distribution."""


def agree(agent: AgentRelease) -> int:
    """Return the protocol to speak with an agent.

    Raises:
        TuneFleetError: INCOMPATIBLE, with what to do on which side.
    """
    spoken = protocol.SPOKEN
    who = f"agent {agent.version[:40] or '(no version)'}"
    common = spoken.common(agent.protocols)
    if common is None:
        newer = agent.protocols.oldest > spoken.newest
        raise _refusal(
            f"{who} speaks protocol {agent.protocols}, coordinator {__version__} {spoken}",
            newer=newer,
        )
    if agent.feature_schema != schema_digest():
        raise _refusal(
            f"{who} extracts features by schema {agent.feature_schema[:40] or '(none)'}, "
            f"coordinator {__version__} by {schema_digest()}"
        )
    if agent.tvm and tvm_version() and agent.tvm != tvm_version():
        raise _refusal(
            f"{who} has {TVM_DISTRIBUTION} {agent.tvm[:40]}, coordinator {__version__} has "
            f"{tvm_version()}: schedules and latencies of the two cannot be compared"
        )
    return common


def release_of(device: DeviceRecord) -> AgentRelease:
    """Return what was known of a device's agent when it registered."""
    return AgentRelease(
        device.agent_version,
        ProtocolRange(device.protocol, device.protocol),
        device.feature_schema,
        device.profile.versions.get(TVM_DISTRIBUTION, ""),
    )


def require_current(device: DeviceRecord) -> None:
    """Refuse work to a device that registered with a coordinator of another release.

    Raises:
        TuneFleetError: INCOMPATIBLE, or AGENT_UNKNOWN where it must register again, for an older
            release did not note what is needed to tell.
    """
    if not device.feature_schema:
        raise TuneFleetError(
            Reason.AGENT_UNKNOWN, f"{device.name} registered with an older release; it must again"
        )
    agree(release_of(device))


def fits_tvm(campaign: CampaignRecord) -> bool:
    """Return whether a campaign was begun with the release of TVM that is here now."""
    return campaign.tvm_version in {"", tvm_version()} or not tvm_version()


def require_same_tvm(campaign: CampaignRecord) -> None:
    """Refuse to go on with what another release of TVM began.

    Raises:
        TuneFleetError: INCOMPATIBLE.
    """
    if not fits_tvm(campaign):
        raise TuneFleetError(
            Reason.INCOMPATIBLE,
            f"it was begun with {TVM_DISTRIBUTION} {campaign.tvm_version}, and the coordinator has "
            f"{tvm_version()} now: modules and schedules of the one do not fit the other",
            hint="Begin it again, or install the release that it was begun with: pip install "
            f"'{TVM_DISTRIBUTION}=={campaign.tvm_version}'",
        )


def _refusal(message: str, *, newer: bool = False) -> TuneFleetError:
    tvm = f" '{TVM_DISTRIBUTION}=={tvm_version()}'" if tvm_version() else ""
    hint = (
        "Install the coordinator's release on this device: "
        f"pip install 'tunefleet[agent]=={__version__}'{tvm}"
    )
    if newer:
        hint += ", or the agent's release where the coordinator runs"
    return TuneFleetError(Reason.INCOMPATIBLE, message, hint=f"{hint}; then start the agent again.")
