"""Join tokens: what a person pastes on a device so that it and the coordinator trust each other."""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass

from tunefleet.errors import Reason, TuneFleetError

PREFIX = "tft1-"
"""The digit is the version of what follows."""

ID_BYTES = 8
SECRET_BYTES = 20
"""160 random bits cannot be guessed, so that a plain hash of them is enough to store."""
PIN_BYTES = 32
_LAYOUT = struct.Struct(f">H{PIN_BYTES}s{ID_BYTES}s{SECRET_BYTES}s")


@dataclass(frozen=True)
class JoinToken:
    """A right to join, and whom to join."""

    token_id: str
    """Public name of the token, in hex."""
    secret: bytes
    pin: bytes
    """SHA-256 of the DER of the certificate that the enrolment port shows."""
    port: int
    """The enrolment port, on the coordinator's host."""

    def text(self) -> str:
        """Write the token as the one word that people copy."""
        packed = _LAYOUT.pack(self.port, self.pin, bytes.fromhex(self.token_id), self.secret)
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    def __repr__(self) -> str:
        # Logs and tracebacks must not give it away.
        return f"JoinToken({self.token_id})"


def parse_token(text: str) -> JoinToken:
    """Read a token as :meth:`JoinToken.text` wrote it.

    Raises:
        TuneFleetError: INVALID_ARGUMENT; its message does not repeat the token.
    """
    stripped = text.strip()
    body = stripped.removeprefix(PREFIX)
    # Three quarters: base64 spends four characters on three bytes.
    length = -(-_LAYOUT.size * 4 // 3)
    if body == stripped or len(body) != length:
        raise _invalid()
    try:
        packed = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        port, pin, token_id, secret = _LAYOUT.unpack(packed)
    except (binascii.Error, ValueError, struct.error) as e:
        raise _invalid() from e
    return JoinToken(token_id.hex(), secret, pin, port)


def _invalid() -> TuneFleetError:
    return TuneFleetError(
        Reason.INVALID_ARGUMENT,
        f"this is no whole join token: it should begin with {PREFIX}",
        hint="Copy the whole word that `tunefleet tokens create` printed.",
    )
