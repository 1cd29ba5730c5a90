"""Joining: a token becomes credentials."""

from __future__ import annotations

import hashlib
import hmac
import socket
import ssl
from dataclasses import dataclass

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from tunefleet.conversions import seconds
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.failures import named_failure
from tunefleet.identity.credentials import CHANNEL_OPTIONS, Credentials
from tunefleet.identity.keys import certificate_request, key_to_pem
from tunefleet.identity.tokens import JoinToken
from tunefleet.v1 import identity_service_pb2 as pb
from tunefleet.v1 import identity_service_pb2_grpc

CONNECT_S = 5.0
CALL_S = 20.0


@dataclass(frozen=True)
class Enrolled:
    """What came of joining."""

    credentials: Credentials
    valid_for_s: float
    """By the coordinator's clock; this machine's may be wrong."""
    name: str
    role: str
    """``agent``, ``viewer``, ``operator`` or ``admin``."""


def enrol(
    coordinator: str, token: JoinToken, key: ec.EllipticCurvePrivateKey, name: str
) -> Enrolled:
    """Join a coordinator. With the same token and key it may be repeated; only the first counts.

    Args:
        coordinator: ``HOST:PORT`` of its main port.
        token: names the enrolment port and pins its certificate.
        key: will be the identity's; it does not leave this process.
        name: an agent's device id; a user's name where the token names none.

    Raises:
        TuneFleetError: COORDINATOR_UNREACHABLE; UNAUTHENTICATED, it is another coordinator than the
            token's, or it refuses the token; FORBIDDEN, the name is somebody else's.
    """
    host = coordinator.rpartition(":")[0]
    address = f"{host}:{token.port}"
    pinned = _pinned_certificate(host.strip("[]"), token)
    options = [*CHANNEL_OPTIONS, ("grpc.enable_http_proxy", 0)]
    request = pb.EnrolRequest(
        token_id=token.token_id,
        secret=token.secret,
        certificate_request=certificate_request(key),
        name=name,
    )
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(pinned), options) as channel:
        stub = identity_service_pb2_grpc.EnrolmentServiceStub(channel)
        try:
            response = stub.Enrol(request, timeout=CALL_S)
        except grpc.RpcError as e:
            raise named_failure(e, address) from e
    return Enrolled(
        Credentials(key_to_pem(key), response.certificate, response.authority),
        seconds(response.valid_for),
        response.name,
        pb.Role.Name(response.role).removeprefix("ROLE_").lower(),
    )


def _pinned_certificate(host: str, token: JoinToken) -> bytes:
    """Fetch the enrolment port's certificate, as PEM, and compare it with the token's pin."""
    # Nothing is verified here but the pin, which is all there is to verify yet.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, token.port), timeout=CONNECT_S) as plain,
            context.wrap_socket(plain) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
    except OSError as e:
        raise TuneFleetError(
            Reason.COORDINATOR_UNREACHABLE,
            f"nobody answers at the coordinator's enrolment port {host}:{token.port}: "
            f"{e.strerror or e}",
            hint="See that the coordinator runs, and that a firewall lets this port through.",
        ) from e
    if der is None or not hmac.compare_digest(hashlib.sha256(der).digest(), token.pin):
        raise TuneFleetError(
            Reason.UNAUTHENTICATED,
            f"who answers at {host}:{token.port} is not the coordinator that made the token",
            hint="Check the address; if it is right, somebody is between you and the coordinator.",
        )
    return ssl.DER_cert_to_PEM_cert(der).encode()
