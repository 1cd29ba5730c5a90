"""Records of who was let in, and of what they did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Role(StrEnum):
    """What somebody may do; each of the users' includes those before it."""

    AGENT = "agent"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def is_user(self) -> bool:
        """Whether a person has it."""
        return self is not Role.AGENT

    def includes(self, other: Role) -> bool:
        """Whether who has this role may do what the other may; agents and users never mix."""
        if not self.is_user or not other.is_user:
            return self is other
        return _USERS.index(self) >= _USERS.index(other)


_USERS = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)


@dataclass(frozen=True)
class TokenRecord:
    """A join token. Times are in seconds since 1970."""

    token_id: str
    secret_hash: str
    """SHA-256 of the secret, in hex; the secret itself is nowhere."""
    role: Role
    name: str
    """The user's; empty for agents."""
    labels: Mapping[str, str]
    uses: int
    uses_left: int
    expires_at_unix_s: float
    created_at_unix_s: float
    created_by: str
    revoked: bool = False


@dataclass(frozen=True)
class CertificateRecord:
    """A certificate that the authority signed. Times are in seconds since 1970."""

    serial: str
    """In hex."""
    role: Role
    name: str
    """A device id, or a user's name."""
    key_digest: str
    """SHA-256 of the public key, in hex."""
    token_id: str
    """The token it was given for; empty for the first admin."""
    issued_at_unix_s: float
    expires_at_unix_s: float
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the token; an agent's own labels give way to them."""
    revoked: bool = False


@dataclass(frozen=True)
class AuditRecord:
    """What somebody did or was refused."""

    at_unix_s: float
    actor: str
    """Such as ``user:ada`` or ``agent:5e9…``; empty where nobody was identified."""
    peer: str
    """From where."""
    action: str
    detail: str
    outcome: str
    """``OK``, or the reason from the catalogue of errors."""
    seq: int = 0
    """Given by the store."""
