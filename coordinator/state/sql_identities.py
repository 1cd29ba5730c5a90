"""Join tokens, certificates and the audit log in SQL."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from coordinator.state.database import Database
from coordinator.state.identity_records import AuditRecord, CertificateRecord, Role, TokenRecord
from coordinator.state.store import Store
from coordinator.state.tables import audit_log, certificates, join_tokens
from tunefleet.errors import Reason, TuneFleetError

AUDIT_LIMIT = 200_000
"""Entries kept; some 100 MB."""
_PRUNE_EVERY = 500
_SUFFIX = "_unix_s"


class SqlIdentities(Store):
    """The part of the store that knows who was let in."""

    _db: Database

    def add_token(self, token: TokenRecord) -> None:
        with self._db.write() as connection:
            connection.execute(insert(join_tokens).values(_values(token)))

    def get_token(self, token_id: str) -> TokenRecord | None:
        query = select(join_tokens).where(join_tokens.c.token_id == token_id)
        with self._db.read() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _record(TokenRecord, row)

    def list_tokens(self) -> list[TokenRecord]:
        query = select(join_tokens).order_by(
            join_tokens.c.created_at.desc(), join_tokens.c.token_id
        )
        with self._db.read() as connection:
            return [_record(TokenRecord, row) for row in connection.execute(query).mappings()]

    def revoke_token(self, token_id: str) -> None:
        with self._db.write() as connection:
            done = connection.execute(
                update(join_tokens).where(join_tokens.c.token_id == token_id).values(revoked=True)
            )
        if done.rowcount == 0:
            raise TuneFleetError(
                Reason.INVALID_ARGUMENT,
                f"there is no token {token_id[:80]!r}",
                hint="See `tunefleet tokens list`.",
            )

    def enrol(self, certificate: CertificateRecord, now: float) -> None:
        with self._db.write() as connection:
            query = select(join_tokens).where(join_tokens.c.token_id == certificate.token_id)
            row = connection.execute(query).mappings().first()
            token = None if row is None else _record(TokenRecord, row)
            if token is None or token.revoked or now >= token.expires_at_unix_s:
                raise _refused("it is not known, was revoked, or has ended")
            again = _check_name(connection, certificate, now)
            if not again:
                spent = connection.execute(
                    update(join_tokens)
                    .where(join_tokens.c.token_id == token.token_id, join_tokens.c.uses_left > 0)
                    .values(uses_left=join_tokens.c.uses_left - 1)
                )
                if spent.rowcount == 0:
                    raise _refused("it was used as often as it may be")
            connection.execute(insert(certificates).values(_values(certificate)))

    def add_certificate(self, certificate: CertificateRecord) -> None:
        with self._db.write() as connection:
            connection.execute(insert(certificates).values(_values(certificate)))

    def list_certificates(self) -> list[CertificateRecord]:
        query = select(certificates).order_by(certificates.c.issued_at, certificates.c.serial)
        with self._db.read() as connection:
            return [_record(CertificateRecord, row) for row in connection.execute(query).mappings()]

    def revoke_certificates(self, name: str) -> list[CertificateRecord]:
        with self._db.write() as connection:
            connection.execute(
                update(certificates).where(certificates.c.name == name).values(revoked=True)
            )
            query = select(certificates).where(certificates.c.name == name)
            rows = connection.execute(query.order_by(certificates.c.issued_at)).mappings()
            return [_record(CertificateRecord, row) for row in rows]

    def forget_certificates(self, before: float) -> int:
        ended = (certificates.c.expires_at < before) & ~certificates.c.revoked
        with self._db.write() as connection:
            return connection.execute(delete(certificates).where(ended)).rowcount

    def note_audit(self, entry: AuditRecord) -> None:
        values = _values(entry)
        del values["seq"]
        with self._db.write() as connection:
            made = connection.execute(insert(audit_log).values(values))
            [seq] = made.inserted_primary_key or (0,)
            if seq % _PRUNE_EVERY == 0:
                old = audit_log.c.seq <= seq - AUDIT_LIMIT
                connection.execute(delete(audit_log).where(old))

    def list_audit(self, limit: int, before_seq: int = 0) -> list[AuditRecord]:
        query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
        if before_seq:
            query = query.where(audit_log.c.seq < before_seq)
        with self._db.read() as connection:
            return [_record(AuditRecord, row) for row in connection.execute(query).mappings()]


def _check_name(connection: Connection, wanted: CertificateRecord, now: float) -> bool:
    """Return whether the same token gave the same key its name before; a name is nobody else's."""
    query = select(certificates).where(certificates.c.name == wanted.name)
    known = [_record(CertificateRecord, row) for row in connection.execute(query).mappings()]
    for each in known:
        if each.role.is_user != wanted.role.is_user:
            raise _taken(wanted.name, "it is the name of another kind of identity")
        if wanted.role.is_user:
            continue
        if each.revoked:
            raise _taken(wanted.name, "it was revoked")
        if each.key_digest != wanted.key_digest and now < each.expires_at_unix_s:
            raise _taken(wanted.name, "another key holds it")
    return any(
        (each.token_id, each.key_digest) == (wanted.token_id, wanted.key_digest)
        and not each.revoked
        for each in known
    )


def _refused(why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.UNAUTHENTICATED,
        f"the join token is refused: {why}",
        hint="Ask an admin for a new one: `tunefleet tokens create`.",
    )


def _taken(name: str, why: str) -> TuneFleetError:
    return TuneFleetError(
        Reason.FORBIDDEN,
        f"the identity {name} cannot be taken: {why}",
        hint="To let the machine join as a new device, remove the agent's folder first.",
    )


def _values(record: Any) -> dict[str, Any]:
    return {
        field.name.removesuffix(_SUFFIX): getattr(record, field.name) for field in fields(record)
    }


def _record(kind: type[Any], row: RowMapping) -> Any:
    values = {field.name: row[field.name.removesuffix(_SUFFIX)] for field in fields(kind)}
    if "role" in values:
        values["role"] = Role(values["role"])
    return kind(**values)
