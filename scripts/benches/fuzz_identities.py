"""Those in whose name the fuzzer calls: an admin, the agents, and a stranger who wants to join."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from coordinator.state.home import Home
from scripts.benches.fuzz_home import DEVICES
from tunefleet.client import TuneFleet
from tunefleet.identity.credentials import CHANNEL_OPTIONS, Credentials
from tunefleet.identity.enrolling import enrol
from tunefleet.identity.keys import certificate_request, new_key
from tunefleet.identity.tokens import JoinToken, parse_token
from tunefleet.v1 import identity_service_pb2 as pb
from tunefleet.v1 import identity_service_pb2_grpc

ADMIN = "admin"
STRANGER = "stranger"

_OPTIONS = (
    *CHANNEL_OPTIONS,
    # Without it, channels of one process share a connection.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class Identity:
    """Somebody, with what they prove it by."""

    name: str
    """:data:`ADMIN`, :data:`STRANGER` or a device's id."""
    address: str
    authority: bytes
    key: bytes = b""
    certificate: bytes = b""

    def connect(self) -> grpc.aio.Channel:
        """Open a channel: the only place that knows how callers prove who they are."""
        credentials = grpc.ssl_channel_credentials(
            self.authority, self.key or None, self.certificate or None
        )
        return grpc.aio.secure_channel(self.address, credentials, options=list(_OPTIONS))


def identities(home: Home, address: str) -> tuple[list[Identity], dict[str, list[Any]]]:
    """Let everybody join a coordinator.

    Args:
        home: of the coordinator, which runs.
        address: HOST:PORT of its main port.

    Returns:
        Who there is, and values that fit the requests of those who join.
    """
    admin = Credentials.load(home.admin_dir)
    assert admin is not None
    with _secure(address, admin) as channel:
        token = _token(channel, uses=1000)
        other = _token(channel, uses=1)
    everybody = [Identity(ADMIN, address, admin.authority, admin.key, admin.certificate)]
    for name in DEVICES:
        made = enrol(address, token, new_key(), name).credentials
        everybody.append(Identity(name, address, made.authority, made.key, made.certificate))
    host = address.rpartition(":")[0]
    pinned = _enrolment_certificate(home.authority_dir)
    everybody.append(Identity(STRANGER, f"{host}:{token.port}", pinned))
    return everybody, {
        "EnrolRequest.token_id": [token.token_id],
        "EnrolRequest.secret": [token.secret, secrets.token_bytes(len(token.secret))],
        "EnrolRequest.name": ["joined-1", "joined-2", *DEVICES],
        "certificate_request": [certificate_request(new_key()) for _ in range(4)],
        "RevokeTokenRequest.token_id": [other.token_id],
        "RevokeIdentityRequest.name": ["nobody", "joined-1"],
        "CreateTokenRequest.name": ["", "eve"],
        "uses": [1, 10],
    }


def client(home: Home, address: str) -> TuneFleet:
    """Connect as people do, as the admin."""
    return TuneFleet(address, credentials=home.admin_dir)


def _secure(address: str, held: Credentials) -> grpc.Channel:
    options: Sequence[tuple[str, Any]] = [*CHANNEL_OPTIONS]
    return grpc.secure_channel(address, held.channel_credentials(), options)


def _token(channel: grpc.Channel, uses: int) -> JoinToken:
    stub = identity_service_pb2_grpc.IdentityServiceStub(channel)
    request = pb.CreateTokenRequest(role=pb.ROLE_AGENT, uses=uses)
    request.ttl.FromSeconds(86_400)
    return parse_token(stub.CreateToken(request, timeout=60).token)


def _enrolment_certificate(folder: Path) -> bytes:
    """Return what the enrolment port shows; who joins has its hash from a token."""
    from coordinator.security.authority import Authority  # noqa: PLC0415

    return Authority(folder).enrolment.certificate
