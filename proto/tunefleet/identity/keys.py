"""Keys and certificate requests."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

SERVER_NAME = "coordinator.tunefleet"
"""Name in every coordinator's certificate. Its authority signs for one coordinator alone, which may
be called by any address, so the address says nothing more."""


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key; P-256 is what every TLS library signs with."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a key, unencrypted: file permissions protect it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def key_from_pem(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a key.

    Raises:
        ValueError: it is none of ours.
    """
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not one of an elliptic curve")  # noqa: TRY004
    return key


def certificate_request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Make a PKCS #10 request, as DER; its signature proves that we hold the key.

    It names nobody: the coordinator decides on the name.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 of a public key's SubjectPublicKeyInfo, in hex."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
