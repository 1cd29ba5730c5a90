"""Join tokens, users and the audit log, as an admin asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from tunefleet.client.connection import Connection
from tunefleet.conversions import duration, seconds, unix_seconds
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import folder_for
from tunefleet.identity.enrolling import Enrolled, enrol
from tunefleet.identity.keys import new_key
from tunefleet.identity.tokens import parse_token
from tunefleet.v1 import identity_service_pb2 as pb
from tunefleet.v1 import identity_service_pb2_grpc

ROLES = ("agent", "viewer", "operator", "admin")


@dataclass(frozen=True)
class Token:
    """What is known of a join token."""

    id: str
    role: str
    name: str
    """The user's; empty for agents."""
    labels: Mapping[str, str]
    uses_left: int
    uses: int
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked: bool


@dataclass(frozen=True)
class NewToken:
    """A token that was just made; its text is shown this once."""

    text: str
    token: Token
    loopback_only: bool = False
    """Whether the coordinator listens where only its own machine can join."""


@dataclass(frozen=True)
class Identity:
    """An agent or a user who has joined."""

    role: str
    name: str
    """A device's id, or a user's name."""
    created_at: datetime
    expires_at: datetime
    revoked: bool
    token_id: str


@dataclass(frozen=True)
class AuditEntry:
    """What somebody did or was refused."""

    seq: int
    at: datetime
    actor: str
    peer: str
    action: str
    detail: str
    outcome: str


@dataclass(frozen=True)
class Myself:
    """As whom the coordinator knows the caller."""

    name: str
    role: str
    valid_for_s: float | None
    """Seconds for which the certificate is still good; ``None`` on plain text."""


class IdentityCalls:
    """The part of a connection to a coordinator that knows who may use it."""

    _connection: Connection

    def whoami(self) -> Myself:
        """Return as whom the coordinator knows us."""
        response = self._connection.call(self._identities().WhoAmI, pb.WhoAmIRequest())
        left = seconds(response.valid_for) if response.HasField("valid_for") else None
        return Myself(response.name, _role(response.role), left)

    def create_token(
        self,
        role: str = "agent",
        *,
        name: str = "",
        labels: Mapping[str, str] | None = None,
        uses: int = 1,
        ttl_s: float = 3600.0,
    ) -> NewToken:
        """Make a join token.

        Args:
            role: ``agent``, or of a user ``viewer``, ``operator`` or ``admin``.
            name: the user's; empty for agents.
            labels: that agents who join with it get, whatever they say of themselves.
            uses: how often it may be used.
            ttl_s: seconds for which it is good.

        Raises:
            TuneFleetError: INVALID_ARGUMENT; FORBIDDEN for who is no admin.
        """
        if role not in ROLES:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT, f"{role!r} is no role; there are {', '.join(ROLES)}"
            )
        # Not repeated by itself: each attempt would make another token.
        response = self._connection.call(
            self._identities().CreateToken,
            pb.CreateTokenRequest(
                role=pb.Role.Value(f"ROLE_{role.upper()}"),
                name=name,
                labels=dict(labels or {}),
                uses=uses,
                ttl=duration(ttl_s),
            ),
        )
        return NewToken(response.token, _token(response.info), response.loopback_only)

    def tokens(self) -> list[Token]:
        """Return all join tokens, newest first."""
        response = self._connection.call(self._identities().ListTokens, pb.ListTokensRequest())
        return [_token(message) for message in response.tokens]

    def revoke_token(self, token_id: str) -> None:
        """Make a token useless; who joined with it stays."""
        request = pb.RevokeTokenRequest(token_id=token_id)
        self._connection.call(self._identities().RevokeToken, request)

    def identities(self) -> list[Identity]:
        """Return users, then agents, each by name."""
        response = self._connection.call(
            self._identities().ListIdentities, pb.ListIdentitiesRequest()
        )
        return [_identity(message) for message in response.identities]

    def revoke(self, name: str) -> Identity:
        """Refuse a user, or a device by id or name, from now on.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, nobody is called so.
        """
        request = pb.RevokeIdentityRequest(name=name)
        response = self._connection.call(self._identities().RevokeIdentity, request)
        return _identity(response.identity)

    def audit(self, limit: int = 100, before_seq: int = 0) -> list[AuditEntry]:
        """Return what people did and what was refused, newest first."""
        request = pb.ListAuditEntriesRequest(limit=limit, before_seq=before_seq)
        response = self._connection.call(self._identities().ListAuditEntries, request)
        return [
            AuditEntry(e.seq, _moment(e.at), e.actor, e.peer, e.action, e.detail, e.outcome)
            for e in response.entries
        ]

    def _identities(self) -> identity_service_pb2_grpc.IdentityServiceStub:
        return identity_service_pb2_grpc.IdentityServiceStub(self._connection.channel)


def login(address: str, token: str, name: str = "") -> tuple[Enrolled, Path]:
    """Join a coordinator as a user, and keep the credentials where commands find them.

    Args:
        address: HOST:PORT of the coordinator.
        token: what an admin's ``tunefleet users add`` printed.
        name: for tokens that name nobody.

    Returns:
        What came of it, and the folder of the credentials.

    Raises:
        TuneFleetError: INVALID_ARGUMENT, UNAUTHENTICATED, COORDINATOR_UNREACHABLE.
    """
    joined = enrol(address, parse_token(token), new_key(), name)
    folder = folder_for(address)
    joined.credentials.save(folder)
    return joined, folder


def _role(number: pb.Role.ValueType) -> str:
    return pb.Role.Name(number).removeprefix("ROLE_").lower()


def _token(message: pb.TokenInfo) -> Token:
    return Token(
        id=message.token_id,
        role=_role(message.role),
        name=message.name,
        labels=dict(message.labels),
        uses_left=message.uses_left,
        uses=message.uses,
        created_at=_moment(message.created_at),
        created_by=message.created_by,
        expires_at=_moment(message.expires_at),
        revoked=message.revoked,
    )


def _identity(message: pb.Identity) -> Identity:
    return Identity(
        role=_role(message.role),
        name=message.name,
        created_at=_moment(message.created_at),
        expires_at=_moment(message.expires_at),
        revoked=message.revoked,
        token_id=message.token_id,
    )


def _moment(message: Timestamp) -> datetime:
    return datetime.fromtimestamp(unix_seconds(message), UTC)
