"""What each call needs. A call that is not named here is refused; a test names them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.state.identity_records import Role


@dataclass(frozen=True)
class Rule:
    """Who may make a call."""

    roles: tuple[Role, ...]
    """Any of these, or a user's role that includes one of them."""
    audited: bool = False
    """Noted in the audit log, since it changes something."""

    def allows(self, role: Role) -> bool:
        """Whether somebody of a role may make the call."""
        return any(role.includes(each) for each in self.roles)


_AGENT = Rule((Role.AGENT,))
_LOOK = Rule((Role.VIEWER,))
_OPERATE = Rule((Role.OPERATOR,), audited=True)
# Moving bytes changes nothing that anybody would look for in the log: what uses them is noted.
_UPLOAD = Rule((Role.OPERATOR,))
_FETCH = Rule((Role.VIEWER, Role.AGENT))
_ANYBODY = Rule((Role.VIEWER, Role.AGENT))
_ADMINISTER = Rule((Role.ADMIN,), audited=True)
_INSPECT = Rule((Role.ADMIN,))

_BY_SERVICE: Mapping[str, Mapping[str, Rule]] = {
    "AgentService": {
        "RegisterAgent": _AGENT,
        "Control": _AGENT,
        "SendHeartbeat": _AGENT,
        "AcquireLease": _AGENT,
        "RenewLease": _AGENT,
        "ReportTrials": _AGENT,
        "CompleteLease": _AGENT,
    },
    "BlobService": {"GetBlob": _FETCH, "PutBlob": _UPLOAD, "FindMissingBlobs": _UPLOAD},
    "CampaignService": {
        "CreateCampaign": _OPERATE,
        "GetCampaign": _LOOK,
        "ListCampaigns": _LOOK,
        "WatchCampaign": _LOOK,
        "PauseCampaign": _OPERATE,
        "ResumeCampaign": _OPERATE,
        "CancelCampaign": _OPERATE,
    },
    "DeviceService": {
        "ListDevices": _LOOK,
        "GetDevice": _LOOK,
        "ReleaseDevice": _OPERATE,
        "DrainDevice": _OPERATE,
        "UndrainDevice": _OPERATE,
    },
    "CoordinatorService": {
        "GetCoordinator": _LOOK,
        "DrainCoordinator": _ADMINISTER,
        "ResumeCoordinator": _ADMINISTER,
    },
    "ModelService": {
        "ListModelVersions": _LOOK,
        "GetModelVersion": _LOOK,
        "UploadModelVersion": _OPERATE,
        "PromoteModelVersion": _OPERATE,
        "RollbackModelVersion": _OPERATE,
    },
    # Exporting writes files on the coordinator's disk.
    "DatasetService": {"GetDatasetStats": _LOOK, "ExportDataset": _OPERATE},
    "IdentityService": {
        "WhoAmI": _ANYBODY,
        "RenewCertificate": _ANYBODY,
        "CreateToken": _ADMINISTER,
        "ListTokens": _INSPECT,
        "RevokeToken": _ADMINISTER,
        "ListIdentities": _INSPECT,
        "RevokeIdentity": _ADMINISTER,
        "ListAuditEntries": _INSPECT,
    },
}

RULES: Mapping[str, Rule] = {
    f"/tunefleet.v1.{service}/{method}": rule
    for service, methods in _BY_SERVICE.items()
    for method, rule in methods.items()
}
"""By the method's full name."""
