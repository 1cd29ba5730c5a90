"""The coordinator's own certificate authority."""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.keys import SERVER_NAME, key_digest, key_from_pem, key_to_pem, new_key

AGENT_LIFETIME_S = 90 * 86400.0
"""Agents renew by themselves; one that was off for a season joins again."""

USER_LIFETIME_S = 365 * 86400.0
"""People join again once a year."""

BACKDATED_S = 30 * 86400.0
"""The coordinator's own clock may jump back after it signed."""

MAX_REQUEST_BYTES = 4096
"""A request with a P-256 key has 300."""

_FOREVER = (
    datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC),
    datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC),
)
"""For what agents check by their own clock: a board without a battery wakes up in 1970."""


@dataclass(frozen=True)
class Issued:
    """A certificate that was made."""

    pem: bytes
    serial: str
    """In hex."""
    issued_at_unix_s: float
    expires_at_unix_s: float


@dataclass(frozen=True)
class ServerPair:
    """What a port shows: key and certificate, as PEM."""

    key: bytes
    certificate: bytes


class Authority:
    """Signs certificates for one coordinator and for those whom it lets in."""

    def __init__(self, folder: Path) -> None:
        """Read the authority's key from a folder, or make one where the folder holds none.

        Raises:
            TuneFleetError: INVALID_ARGUMENT, what is there is damaged.
        """
        self._key, self._certificate = _pair(folder, "authority", authority=True)
        # Shown on the enrolment port alone; tokens pin it, since nobody knows the authority yet.
        enrolment_key, enrolment = _pair(folder, "enrolment", authority=False)
        self.enrolment = ServerPair(key_to_pem(enrolment_key), enrolment.public_bytes(Encoding.PEM))
        self.pin = hashlib.sha256(enrolment.public_bytes(Encoding.DER)).digest()
        """What join tokens carry."""
        self.pem = self._certificate.public_bytes(Encoding.PEM)
        """The authority's certificate."""

    def server_pair(self) -> ServerPair:
        """Make a new key and certificate for the main port."""
        key = new_key()
        builder = (
            _builder(key.public_key(), SERVER_NAME, self._certificate.subject)
            .not_valid_before(_FOREVER[0])
            .not_valid_after(_FOREVER[1])
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return ServerPair(key_to_pem(key), self._sign(builder).public_bytes(Encoding.PEM))

    def issue(
        self, key: ec.EllipticCurvePublicKey, name: str, now: float, lifetime_s: float
    ) -> Issued:
        """Sign a client's certificate.

        Args:
            key: the client's.
            name: a device id or a user's name; what it may do is in the store, not in here.
            now: seconds since 1970.
            lifetime_s: seconds for which it is good.
        """
        # X.509 knows whole seconds only.
        began, ends = int(now), int(now + lifetime_s)
        builder = (
            _builder(key, name, self._certificate.subject)
            .not_valid_before(datetime.datetime.fromtimestamp(began - BACKDATED_S, datetime.UTC))
            .not_valid_after(datetime.datetime.fromtimestamp(ends, datetime.UTC))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        )
        made = self._sign(builder)
        return Issued(made.public_bytes(Encoding.PEM), f"{made.serial_number:x}", began, ends)

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            builder.add_extension(constraints, critical=True)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def requested_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a certificate request whose sender holds it.

    Raises:
        TuneFleetError: INVALID_ARGUMENT.
    """
    if len(der) > MAX_REQUEST_BYTES:
        raise _invalid_request(f"it has more than {MAX_REQUEST_BYTES} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        sound = request.is_signature_valid
        key = request.public_key()
    except (ValueError, InvalidSignature, TypeError) as e:
        raise _invalid_request("it cannot be read") from e
    except Exception as e:  # an unknown algorithm or curve, of many types
        raise _invalid_request("it uses an algorithm that is not known") from e
    if not sound:
        raise _invalid_request("its signature is not its key's")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _invalid_request("its key is not one of P-256")
    return key


def digest_of(key: ec.EllipticCurvePublicKey) -> str:
    """Return the name of a key, in hex."""
    return key_digest(key)


def _invalid_request(why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.INVALID_ARGUMENT, f"the certificate request is not accepted: {why}"
    )


def _builder(
    key: ec.EllipticCurvePublicKey, name: str, issuer: x509.Name
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
    )


def _pair(
    folder: Path, name: str, *, authority: bool
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Read a self-signed pair from one file, or make it."""
    path = folder / f"{name}.pem"
    if not path.exists():
        _write(path, *_make(authority=authority))
    text = path.read_bytes()
    try:
        key, certificate = key_from_pem(text), x509.load_pem_x509_certificate(text)
    except (ValueError, TypeError) as e:
        raise TuneFleetError(
            Reason.INVALID_ARGUMENT,
            f"{path} is damaged: {e}",
            hint="Bring it back from a backup. Without it, all agents and users must join again: "
            "remove the folder then.",
        ) from e
    return key, certificate


def _make(*, authority: bool) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = new_key()
    # Each authority has a name of its own, or TLS libraries would try one's key on another's.
    name = f"TuneFleet {'authority' if authority else 'enrolment'} {os.urandom(4).hex()}"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        _builder(key.public_key(), name, subject)
        .not_valid_before(_FOREVER[0])
        .not_valid_after(_FOREVER[1])
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=0 if authority else None), critical=True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not authority:
        names = x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(key, hashes.SHA256())


def _write(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key_to_pem(key) + certificate.public_bytes(Encoding.PEM))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
