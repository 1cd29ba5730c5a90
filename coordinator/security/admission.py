"""Lets agents and users in: tokens, certificates, renewals, the first admin."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.security.authority import (
    AGENT_LIFETIME_S,
    USER_LIFETIME_S,
    Authority,
    Issued,
    requested_key,
)
from coordinator.security.directory import Caller, Directory
from coordinator.state.identity_records import CertificateRecord, Role, TokenRecord
from coordinator.state.store import Store
from tunefleet.errors import Reason, TuneFleetError
from tunefleet.identity.credentials import Credentials
from tunefleet.identity.keys import key_digest, key_to_pem, new_key
from tunefleet.identity.tokens import ID_BYTES, SECRET_BYTES, JoinToken

FIRST_ADMIN = "admin"
MAX_USES = 100_000
MAX_TTL_S = 365 * 86400.0
_ADMIN_RENEWED_S = 60 * 86400.0
"""The first admin's certificate is made anew at a start when it has less time left."""
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LABEL_KEY = re.compile(r"[A-Za-z0-9_./-]{1,63}")
_MAX_LABELS = 32
_MAX_LABEL_CHARS = 200
_FORGET_AFTER_S = 30 * 86400.0


@dataclass(frozen=True)
class Admitted:
    """A certificate for somebody who was let in."""

    issued: Issued
    role: Role
    name: str

    @property
    def lifetime_s(self) -> float:
        """Seconds for which it is good."""
        return self.issued.expires_at_unix_s - self.issued.issued_at_unix_s


class Admission:
    """Decides who gets a certificate. Its methods block; call them outside of the event loop."""

    def __init__(
        self,
        store: Store,
        authority: Authority,
        directory: Directory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self.authority = authority

    def create_token(
        self,
        role: Role,
        name: str,
        labels: Mapping[str, str],
        *,
        uses: int,
        ttl_s: float,
        created_by: str,
        port: int,
    ) -> tuple[JoinToken, TokenRecord]:
        """Make a token and keep its hash.

        Raises:
            TuneFleetError: INVALID_ARGUMENT.
        """
        _check_token(role, name, labels, uses, ttl_s)
        secret, now = secrets.token_bytes(SECRET_BYTES), self._clock()
        record = TokenRecord(
            token_id=secrets.token_hex(ID_BYTES),
            secret_hash=hashlib.sha256(secret).hexdigest(),
            role=role,
            name=name,
            labels=dict(labels),
            uses=uses,
            uses_left=uses,
            expires_at_unix_s=now + ttl_s,
            created_at_unix_s=now,
            created_by=created_by,
        )
        self._store.add_token(record)
        return JoinToken(record.token_id, secret, self.authority.pin, port), record

    def enrol(self, token_id: str, secret: bytes, request: bytes, name: str) -> Admitted:
        """Exchange a token for a certificate.

        Raises:
            TuneFleetError: UNAUTHENTICATED, INVALID_ARGUMENT, FORBIDDEN.
        """
        token = self._store.get_token(token_id)
        # Hashed and compared also where there is none, so that the time tells nothing.
        known = token.secret_hash if token is not None else "0" * 64
        same = hmac.compare_digest(hashlib.sha256(secret).hexdigest(), known)
        if token is None or not same:
            raise TuneFleetError(
                Reason.UNAUTHENTICATED,
                "the join token is refused: it is not known",
                hint="Ask an admin for a new one: `tunefleet tokens create`.",
            )
        key = requested_key(request)
        chosen = token.name or name
        if not _NAME.fullmatch(chosen):
            raise _invalid(f"the name {chosen[:80]!r} should be up to 64 letters, digits and ._-")
        return self._admit(token.role, chosen, key, token_id, token.labels, spend=True)

    def renew(self, who: Caller, request: bytes) -> Admitted:
        """Make a new certificate for somebody who has one.

        Raises:
            TuneFleetError: INVALID_ARGUMENT.
        """
        if not who.serial:
            raise _invalid("there are no certificates to renew on plain text")
        key = requested_key(request)
        return self._admit(who.role, who.name, key, "", dict(who.labels), spend=False)

    def keep_first_admin(self, folder: Path) -> None:
        """See that the folder holds credentials of an admin, for whoever owns the home."""
        now = self._clock()
        held = Credentials.load(folder)
        if (
            held is not None
            and held.authority == self.authority.pem
            and held.seconds_left(now) > _ADMIN_RENEWED_S
            and self._is_known(held)
        ):
            return
        key = new_key()
        made = self._admit(Role.ADMIN, FIRST_ADMIN, key.public_key(), "", {}, spend=False)
        Credentials(key_to_pem(key), made.issued.pem, self.authority.pem).save(folder)

    def forget_ended(self) -> None:
        """Forget certificates that ended long ago."""
        self._store.forget_certificates(self._clock() - _FORGET_AFTER_S)

    def _is_known(self, held: Credentials) -> bool:
        try:
            self._directory.identify(held.certificate)
        except TuneFleetError:
            return False
        return True

    def _admit(
        self,
        role: Role,
        name: str,
        key: ec.EllipticCurvePublicKey,
        token_id: str,
        labels: Mapping[str, str],
        *,
        spend: bool,
    ) -> Admitted:
        now = self._clock()
        lifetime_s = USER_LIFETIME_S if role.is_user else AGENT_LIFETIME_S
        issued = self.authority.issue(key, name, now, lifetime_s)
        record = CertificateRecord(
            serial=issued.serial,
            role=role,
            name=name,
            key_digest=key_digest(key),
            token_id=token_id,
            issued_at_unix_s=issued.issued_at_unix_s,
            expires_at_unix_s=issued.expires_at_unix_s,
            labels=dict(labels),
        )
        # It is handed out only if the store agrees.
        if spend:
            self._store.enrol(record, now)
        else:
            self._store.add_certificate(record)
        self._directory.add(record)
        return Admitted(issued, role, name)


def _check_token(role: Role, name: str, labels: Mapping[str, str], uses: int, ttl_s: float) -> None:
    if role.is_user != bool(name):
        raise _invalid("a user's token names the user, an agent's names nobody")
    if name and not _NAME.fullmatch(name):
        raise _invalid(f"the name {name[:80]!r} should be up to 64 letters, digits and ._-")
    if not 1 <= uses <= MAX_USES:
        raise _invalid(f"a token may be used 1 to {MAX_USES} times, not {uses}")
    if not 1 <= ttl_s <= MAX_TTL_S:
        raise _invalid("a token is good for one second to 365 days")
    if len(labels) > _MAX_LABELS:
        raise _invalid(f"a token may bring {_MAX_LABELS} labels, not {len(labels)}")
    for label, value in labels.items():
        fits = len(value) <= _MAX_LABEL_CHARS and value.isprintable() and "," not in value
        if not _LABEL_KEY.fullmatch(label) or not fits:
            raise _invalid(f"the label {label[:80]!r} cannot be used in selectors")


def _invalid(message: str) -> TuneFleetError:
    return TuneFleetError(Reason.INVALID_ARGUMENT, message)
